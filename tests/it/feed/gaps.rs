//! What retention removes leaves its places empty; all others keep theirs.

use ringback::engine::{FeedPasses, FeedStep};
use ringback::ids::Key;
use ringback::lifecycle::EventType;
use ringback::store::Statement;
use ringback::store::feed::{self, Member, NewChunk};

use super::open_transactions::FAR;
use super::{lines, page};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::Shop;

const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// One pass over the feed: what its steps found.
async fn pass(shop: &Shop, passes: &mut FeedPasses) -> Vec<FeedStep> {
    let before = shop.node.engine.now().plus_millis(-MONTH_MILLIS);
    let mut steps = Vec::new();
    loop {
        let step = shop.node.engine.purge_feed(before, passes).await.unwrap();
        steps.push(step);
        if step.done {
            return steps;
        }
    }
}

fn purged(steps: &[FeedStep]) -> usize {
    steps.iter().map(|step| step.purged).sum()
}

fn looked_at(steps: &[FeedStep]) -> usize {
    steps.iter().map(|step| step.looked_at).sum()
}

/// Runs retention over jobs and the feed as the keeper does.
async fn retain(shop: &Shop) -> (usize, usize) {
    let before = shop.node.engine.now().plus_millis(-MONTH_MILLIS);
    let jobs = shop.node.engine.purge_jobs(before, 0).await.unwrap().purged;
    (jobs, purged(&pass(shop, &mut FeedPasses::default()).await))
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

/// Writes chunks of events that are all gone, with their places.
async fn append(
    shop: &Shop,
    database: &Database,
    ids: impl Iterator<Item = Key>,
    (created_at, size): (i64, i64),
) {
    let mut connection = database.connect();
    connection.begin().expect("a transaction");
    for id in ids {
        let event_type = Some(EventType::FileCreated);
        let member = |sequence| Member { subject: id, sequence, event_type };
        let chunk = NewChunk {
            id,
            application: shop.caller.application,
            created_at,
            members: (1..=size).map(member).collect(),
            awaited: false,
        };
        feed::append(&mut connection, &chunk).expect("SQL");
    }
    connection.commit().expect("they are there");
    shop.place().await;
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

fn chunks(database: &Database) -> usize {
    let sql = "SELECT COUNT(*) AS count FROM feed_chunks";
    let row = database.connect().first::<Count>(Statement::new(sql)).expect("SQL");
    usize::try_from(row.expect("a row").count).expect("a count")
}

on_both!(async what_keeps_something_is_looked_at_once_in_a_while);
async fn what_keeps_something_is_looked_at_once_in_a_while(database: Database) {
    let shop = Shop::open(&database).await;
    for _ in 0..5 {
        let mut waiting = scripted_job();
        waiting.run_at = Some(shop.node.engine.now().plus_millis(4 * MONTH_MILLIS));
        shop.node.submit(&shop.caller, waiting).await;
    }
    shop.place().await;
    let (minute, hour) = (60_000, 60 * 60_000);
    let mut passes = FeedPasses::default();
    shop.node.clock.shift_millis(MONTH_MILLIS + minute);
    for _ in 0..2 {
        let steps = pass(&shop, &mut passes).await;
        assert_eq!((looked_at(&steps), purged(&steps)), (5, 0), "it has only just become old");
    }
    shop.node.clock.shift_millis(hour + minute);
    assert_eq!(looked_at(&pass(&shop, &mut passes).await), 5);
    for _ in 0..2 {
        assert_eq!(looked_at(&pass(&shop, &mut passes).await), 0, "nothing will change there soon");
    }
    shop.run_jobs(1).await;
    // What is new, and no more; on Postgres a writer may have drawn keys for it long before.
    shop.run_jobs(1).await;
    let all = chunks(&database);
    assert!(looked_at(&pass(&shop, &mut passes).await) <= all - 5);
    shop.node.clock.shift_millis(6 * hour);
    assert_eq!(looked_at(&pass(&shop, &mut passes).await), all, "once in a while all of it");
}

on_both!(async young_chunks_before_old_ones_do_not_end_a_pass);
async fn young_chunks_before_old_ones_do_not_end_a_pass(database: Database) {
    let shop = Shop::open(&database).await;
    let now = shop.node.engine.now().0;
    // A writer that was slow to use up its block of keys, and one that was quick.
    append(&shop, &database, FAR..FAR + 1_200, (now, 1)).await;
    append(&shop, &database, FAR + 2_000..FAR + 2_010, (0, 1)).await;
    let steps = pass(&shop, &mut FeedPasses::default()).await;
    assert_eq!((looked_at(&steps), purged(&steps)), (1_210, 10));
}

on_both!(async a_step_is_bounded_by_events_and_not_by_chunks_alone);
async fn a_step_is_bounded_by_events_and_not_by_chunks_alone(database: Database) {
    let shop = Shop::open(&database).await;
    append(&shop, &database, FAR..FAR + 8, (0, 2_000)).await;
    let steps = pass(&shop, &mut FeedPasses::default()).await;
    assert_eq!(steps.iter().map(|step| step.purged).collect::<Vec<_>>(), [3, 3, 2, 0]);
}
