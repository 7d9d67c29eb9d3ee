//! What retention removes leaves its places empty; all others keep theirs.

use super::{lines, page};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::Shop;

const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Runs retention over jobs and the feed as the keeper does.
async fn retain(shop: &Shop) -> (usize, usize) {
    let engine = &shop.node.engine;
    let before = engine.now().plus_millis(-MONTH_MILLIS);
    let jobs = engine.purge_jobs(before, 0).await.unwrap().purged;
    let (mut chunks, mut after) = (0, Some(0));
    while let Some(from) = after {
        let (gone, next) = engine.purge_feed(before, from).await.unwrap();
        chunks += gone;
        after = next;
    }
    (jobs, chunks)
}

on_both!(async what_is_purged_leaves_gaps_and_nothing_else);
async fn what_is_purged_leaves_gaps_and_nothing_else(database: Database) {
    let shop = Shop::open(&database).await;
    // A job that waits for ever among others that are over.
    let old = shop.run_jobs(3).await;
    let mut waiting = scripted_job();
    waiting.run_at = Some(shop.node.engine.now().plus_millis(4 * MONTH_MILLIS));
    let waiting = shop.node.submit(&shop.caller, waiting).await;
    shop.run_jobs(3).await;
    shop.node.clock.shift_millis(MONTH_MILLIS + 60_000);
    shop.node.beat().await;
    let young = shop.run_jobs(2).await;
    let whole = shop.feed().await;
    assert_eq!(whole.len(), 25);

    let (jobs, chunks) = retain(&shop).await;
    assert_eq!(jobs, 6);
    assert!(chunks > 0, "what nothing is left of goes");
    let kept = shop.feed().await;
    let is_kept =
        |line: &super::Line| line.2 == waiting.id || young.iter().any(|job| job.id == line.2);
    let expected: Vec<_> = lines(&whole).into_iter().filter(is_kept).collect();
    assert_eq!(lines(&kept), expected, "each where it was");
    assert!(kept.iter().all(|one| old.iter().all(|job| job.id != one.event.subject_id)));

    // A reader that stood in what is gone now goes on behind it.
    for after in 0..=25 {
        let later = page(&shop.node, &shop.caller, after, 1_000).await;
        let expected: Vec<_> = expected.iter().filter(|line| line.0 > after).copied().collect();
        assert_eq!(lines(&later.events), expected, "after {after}");
        assert!(!later.more && later.next == 25.max(after));
    }
}

on_both!(async a_feed_that_is_empty_again_goes_on_counting);
async fn a_feed_that_is_empty_again_goes_on_counting(database: Database) {
    let shop = Shop::open(&database).await;
    shop.run_jobs(4).await;
    shop.node.clock.shift_millis(MONTH_MILLIS + 60_000);
    shop.node.beat().await;
    assert_eq!(retain(&shop).await.0, 4);
    assert!(shop.feed().await.is_empty());
    assert_eq!(shop.node.engine.feed_head(shop.caller.application).await.unwrap(), 12);
    let from_the_head = page(&shop.node, &shop.caller, 12, 10).await;
    assert_eq!((from_the_head.next, from_the_head.more), (12, false));
    shop.run_jobs(1).await;
    let positions: Vec<i64> = shop.feed().await.iter().map(|one| one.position).collect();
    assert_eq!(positions, [13, 14, 15]);
}
