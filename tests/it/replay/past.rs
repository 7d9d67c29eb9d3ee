//! Events that happened before the endpoint was there: it gets what others got at that time.

use std::collections::BTreeMap;

use ringback::engine::{Backlog, EndpointSettings, Output, RenderPayload};
use ringback::handlers::{Context, Ending, Product};
use ringback::ids::new_id;
use ringback::lifecycle::Command;
use serde_json::Value;

use super::{all_of, outcome, replay};
use crate::support::database::{Database, on_both};
use crate::support::node::{callback, scripted_job};
use crate::support::shop::Shop;

fn everything() -> EndpointSettings {
    EndpointSettings { events: Some(vec!["*".to_owned()]), ..EndpointSettings::default() }
}

/// Fails once, and then leaves a file.
async fn second_try(context: Context) -> Ending {
    if context.job.state.attempt == 1 {
        return Ending::transient("timeout", "no answer");
    }
    let content = bytes::Bytes::from("some bytes");
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(content)]);
    let staged = context.services.blobs.stage(new_id(), stream, u64::MAX).await.unwrap();
    let output = Output {
        path: format!("/out/{}.txt", context.job.id),
        version: staged.key,
        file_id: new_id(),
        size: staged.size,
        sha256: staged.sha256_hex,
        media_type: "text/plain".to_owned(),
        acl: "public".to_owned(),
    };
    let render: RenderPayload =
        std::sync::Arc::new(|files| serde_json::value::to_raw_value(&files[0].path).unwrap());
    Ending::Done(Product { outputs: vec![output], render })
}

/// As many kinds of events as there are, and time that passes between them.
async fn a_full_life(shop: &Shop) {
    let (node, engine) = (&shop.node, &shop.node.engine);
    let mut job = scripted_job();
    job.metadata = Some(serde_json::value::to_raw_value(&[1, 2]).unwrap());
    job.callback = Some(callback(&shop.receiver.url("/callback")));
    node.scripted.set(second_try);
    let first = node.submit(&shop.caller, job).await;
    let hook = Some(callback(&shop.receiver.url("/group")));
    let batch = vec![scripted_job(), scripted_job()];
    engine.submit_batch(&shop.caller, batch, hook, None, "r").await.unwrap();
    node.work().await;
    shop.send_after(20).await;
    node.work().await;
    engine.trash(&shop.caller, first.id).await.unwrap();
    shop.send_after(20).await;

    // One that goes through many hands by hand.
    node.submit(&shop.caller, scripted_job()).await;
    let queues = || vec![("default".to_owned(), 10)];
    let mut job = engine.claim(queues(), 10).await.unwrap().jobs.remove(0).job;
    let token = job.state.token;
    engine.apply(job.key, Command::Progress { token, fraction: 0.5 }).await.unwrap();
    engine.apply(job.key, Command::Rescue { token }).await.unwrap();
    job = engine.claim(queues(), 10).await.unwrap().jobs.remove(0).job;
    let token = job.state.token;
    // Too little for an event of its own.
    engine.apply(job.key, Command::Progress { token, fraction: 0.01 }).await.unwrap();
    engine.apply(job.key, Command::Release { token }).await.unwrap();
    job = engine.claim(queues(), 10).await.unwrap().jobs.remove(0).job;
    engine
        .apply(job.key, Command::Progress { token: job.state.token, fraction: 0.3 })
        .await
        .unwrap();
    shop.send_after(20).await;
    engine.stop(&shop.caller, job.id).await.unwrap();
    engine.apply(job.key, Command::Halt { token: job.state.token }).await.unwrap();
    let other = shop.register("/other", EndpointSettings::default()).await;
    engine.disable_endpoint(&shop.caller, other).await.unwrap();
    shop.send_after(20).await;
    engine.enable_endpoint(&shop.caller, other, Backlog::Resume).await.unwrap();
    node.scripted.set(|_| async { Ending::permanent("bad_input", "no") });
    shop.run_jobs(1).await;
    shop.send().await;
}

/// What came on a path, by id.
fn bodies(shop: &Shop, path: &str) -> BTreeMap<String, Value> {
    let log = shop.receiver.log_of(path);
    log.iter().map(|one| (one.webhook_id().to_owned(), one.signed().json())).collect()
}

/// Progress between two announcements is in no event. A body that is rendered from the log shows
/// the last one that was announced, which is less than a step behind.
fn as_logged(body: &Value, rendered: &Value) -> Value {
    let progress = |body: &Value| body["data"]["progress"].as_f64();
    let mut body = body.clone();
    if let (Some(live), Some(logged)) = (progress(&body), progress(rendered)) {
        assert!((0.0..0.05).contains(&(live - logged)), "{live} was shown as {logged}");
        body["data"]["progress"] = rendered["data"]["progress"].clone();
    }
    body
}

on_both!(async a_younger_endpoint_gets_what_others_got_then);
async fn a_younger_endpoint_gets_what_others_got_then(database: Database) {
    let shop = Shop::open(&database).await;
    shop.register("/witness", everything()).await;
    a_full_life(&shop).await;
    let witnessed = bodies(&shop, "/witness");
    let mut kinds: Vec<&str> =
        witnessed.values().map(|body| body["type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 15, "{kinds:?}");

    // Rendered anew for the one, as stored for the other.
    let young = shop.register("/young", everything()).await;
    let order = all_of(&shop, young);
    shop.send_after(1).await;
    database.connect().batch("DELETE FROM bodies").expect("SQL");
    let owed = i64::try_from(witnessed.len()).unwrap();
    assert_eq!(outcome(&replay(&shop, &order).await), (owed, 0));
    let younger = shop.register("/younger", everything()).await;
    let order = between_the_same(&order, younger);
    assert_eq!(outcome(&replay(&shop, &order).await).0, owed);
    for path in ["/young", "/younger"] {
        let mut told = bodies(&shop, path);
        told.retain(|id, _| witnessed.contains_key(id));
        assert_eq!(told.len(), witnessed.len());
        for (id, body) in &witnessed {
            assert_eq!(told[id], as_logged(body, &told[id]), "{path}");
        }
    }
    let log = shop.receiver.log_of("/young");
    let first = log.iter().find(|one| witnessed.contains_key(one.webhook_id())).unwrap();
    assert_eq!(first.header("webhook-redelivery"), Some("replay"));
    assert_eq!(first.header("webhook-attempt"), Some("1"));
}

fn between_the_same(
    order: &ringback::engine::ReplayOrder,
    endpoint_id: uuid::Uuid,
) -> ringback::engine::ReplayOrder {
    super::between(endpoint_id, order.since, order.until)
}

on_both!(async what_was_purged_is_left_out);
async fn what_was_purged_is_left_out(database: Database) {
    const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1_000;
    let shop = Shop::open(&database).await;
    let begun = shop.node.engine.now();
    shop.run_jobs(3).await;
    shop.node.clock.shift_millis(MONTH_MILLIS + 60_000);
    shop.node.beat().await;
    shop.run_jobs(2).await;
    let before = shop.node.engine.now().plus_millis(-MONTH_MILLIS);
    assert_eq!(shop.node.engine.purge_jobs(before, 0).await.unwrap().purged, 3);
    let young = shop.register("/young", everything()).await;
    let order = super::between(young, begun, shop.node.engine.now().plus_millis(1));
    assert_eq!(super::count(&shop, &order).await, 6);
    assert_eq!(outcome(&replay(&shop, &order).await), (6, 0));
}
