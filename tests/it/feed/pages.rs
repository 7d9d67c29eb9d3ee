//! Pages: everything once, in order, whatever the size of the pages; only one's own.

use std::collections::HashMap;

use ringback::engine::{Backlog, EndpointSettings, EngineError, FeedFilter};
use ringback::handlers::Ending;
use uuid::Uuid;

use super::{lines, page, wanting};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::{Shop, whole_feed};

/// Events that [`eventful`] makes.
const EVENTFUL: i64 = 41;

/// Jobs that end well and badly, a group, an endpoint: one of each kind of event and many of some.
async fn eventful(shop: &Shop) -> Vec<Uuid> {
    let mut jobs: Vec<Uuid> = shop.run_jobs(5).await.iter().map(|job| job.id).collect();
    let endpoint = shop.register("/hook", EndpointSettings::default()).await;
    let engine = &shop.node.engine;
    let batch = vec![scripted_job(), scripted_job()];
    let batch = engine.submit_batch(&shop.caller, batch, None, None, "r").await.unwrap();
    jobs.extend(batch.jobs.iter().map(|job| job.id));
    engine.disable_endpoint(&shop.caller, endpoint).await.unwrap();
    engine.stop(&shop.caller, shop.submit_jobs(1).await[0].id).await.unwrap();
    shop.node.scripted.set(|_| async { Ending::permanent("bad_input", "no") });
    jobs.extend(shop.run_jobs(5).await.iter().map(|job| job.id));
    engine.enable_endpoint(&shop.caller, endpoint, Backlog::Resume).await.unwrap();
    shop.place().await;
    jobs
}

on_both!(async every_event_comes_once_in_the_order_of_its_subject);
async fn every_event_comes_once_in_the_order_of_its_subject(database: Database) {
    let shop = Shop::open(&database).await;
    let jobs = eventful(&shop).await;
    let feed = shop.feed().await;
    let positions: Vec<i64> = feed.iter().map(|one| one.position).collect();
    assert_eq!(positions, (1..=EVENTFUL).collect::<Vec<i64>>());

    let mut subjects: HashMap<Uuid, i64> = HashMap::new();
    for one in &feed {
        let last = subjects.entry(one.event.subject_id).or_default();
        assert_eq!(one.event.sequence, *last + 1, "{}", one.event.event_type);
        *last = one.event.sequence;
    }
    for job in jobs {
        let own = shop.node.engine.job_events(&shop.caller, job, 0, 100).await.unwrap();
        let mine = feed.iter().filter(|one| one.event.subject_id == job);
        let shown = |event| serde_json::to_string(event).unwrap();
        let own: Vec<String> = own.iter().map(shown).collect();
        assert_eq!(mine.map(|one| shown(&one.event)).collect::<Vec<_>>(), own, "word for word");
    }
    let kinds = |kind: &str| feed.iter().filter(|one| one.event.subject_type == kind).count();
    assert_eq!((kinds("group"), kinds("endpoint")), (1, 2));
}

on_both!(async pages_of_any_size_tell_the_same);
async fn pages_of_any_size_tell_the_same(database: Database) {
    let shop = Shop::open(&database).await;
    eventful(&shop).await;
    let whole = lines(&shop.feed().await);
    for limit in [1, 2, 7, 40, 41, 42] {
        let (mut read, mut after) = (Vec::new(), 0);
        loop {
            let page = page(&shop.node, &shop.caller, after, limit).await;
            assert!(page.events.len() <= limit);
            let last = page.events.last().map_or(after, |last| last.position);
            assert_eq!(page.next, last, "behind what was given");
            read.extend(lines(&page.events));
            after = page.next;
            if !page.more {
                break;
            }
        }
        assert_eq!(read, whole, "in pages of {limit}");
    }
    // From anywhere, and from where it ends: what is new.
    let later = page(&shop.node, &shop.caller, 17, 1_000).await;
    assert_eq!(lines(&later.events), whole[17..]);
    let head = shop.node.engine.feed_head(shop.caller.application).await.unwrap();
    assert_eq!(head, EVENTFUL);
    let nothing = page(&shop.node, &shop.caller, head, 10).await;
    assert_eq!((nothing.events.len(), nothing.next, nothing.more), (0, head, false));
    shop.run_jobs(1).await;
    let new = page(&shop.node, &shop.caller, head, 10).await;
    let positions: Vec<i64> = new.events.iter().map(|one| one.position).collect();
    assert_eq!(positions, [head + 1, head + 2, head + 3]);
}

on_both!(async a_place_that_is_not_in_the_feed_is_refused);
async fn a_place_that_is_not_in_the_feed_is_refused(database: Database) {
    let shop = Shop::open(&database).await;
    let filter = FeedFilter::default();
    let asked = async |after| {
        shop.node.engine.feed_page(shop.caller.application, after, &filter, 10).await.map(|_| ())
    };
    asked(0).await.expect("an empty feed has a beginning");
    let beyond = asked(1).await;
    assert!(matches!(beyond, Err(EngineError::BeyondFeed { given: 1, head: 0 })), "{beyond:?}");
    shop.run_jobs(1).await;
    asked(3).await.expect("the newest");
    for wrong in [4, i64::MAX, -1, i64::MIN] {
        let refused = asked(wrong).await;
        let told =
            matches!(refused, Err(EngineError::BeyondFeed { given, head: 3 }) if given == wrong);
        assert!(told, "{wrong}: {refused:?}");
    }
}

on_both!(async a_filter_leaves_out_and_gets_on);
async fn a_filter_leaves_out_and_gets_on(database: Database) {
    let shop = Shop::open(&database).await;
    eventful(&shop).await;
    let whole = shop.feed().await;
    for types in [&["job.*"][..], &["*"], &["job.failed", "group.*"], &["file.*"], &["job.started"]]
    {
        let filter = wanting(types);
        let named = |name: &str| {
            types.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *pattern == name,
            })
        };
        let expected: Vec<_> = whole
            .iter()
            .filter(|one| named(&one.event.event_type))
            .map(|one| one.position)
            .collect();
        let (mut read, mut after, mut more) = (Vec::new(), 0, true);
        while more {
            let page = shop.node.engine.feed_page(shop.caller.application, after, &filter, 3);
            let page = page.await.unwrap();
            read.extend(page.events.iter().map(|one| one.position));
            (after, more) = (page.next, page.more);
        }
        assert_eq!(read, expected, "{types:?}");
        assert_eq!(after, EVENTFUL, "{types:?}: what was left out is not looked at again");
    }
}

on_both!(async a_page_looks_at_a_bounded_part_and_says_where_it_ended);
async fn a_page_looks_at_a_bounded_part_and_says_where_it_ended(database: Database) {
    let shop = Shop::open(&database).await;
    shop.submit_jobs(450).await;
    shop.place().await;
    let filter = wanting(&["job.failed"]);
    let (mut after, mut pages) = (0, 0);
    loop {
        let page = shop.node.engine.feed_page(shop.caller.application, after, &filter, 100);
        let page = page.await.unwrap();
        assert!(page.events.is_empty());
        assert!(page.next > after || !page.more, "it gets on");
        (after, pages) = (page.next, pages + 1);
        if !page.more {
            break;
        }
    }
    assert_eq!((after, pages), (450, 3));
}

on_both!(async nobody_sees_anothers_events);
async fn nobody_sees_anothers_events(database: Database) {
    let shop = Shop::open(&database).await;
    let (other, _) = shop.node.application("other").await;
    let (stranger, _) = shop.node.application("nobody").await;
    for _ in 0..10 {
        shop.submit_jobs(1).await;
        shop.node.submit(&other, scripted_job()).await;
        shop.node.work().await;
    }
    shop.place().await;
    for caller in [&shop.caller, &other] {
        let feed = whole_feed(&shop.node, caller).await;
        let positions: Vec<i64> = feed.iter().map(|one| one.position).collect();
        assert_eq!(positions, (1..=30).collect::<Vec<i64>>(), "counted for each alone");
        for one in feed {
            shop.node.engine.find_job(caller, one.event.subject_id).await.expect("its own");
        }
    }
    assert!(whole_feed(&shop.node, &stranger).await.is_empty());
    assert_eq!(shop.node.engine.feed_head(stranger.application).await.unwrap(), 0);
}
