//! Signatures while a secret is rotated.

use std::time::Duration;

use ringback::delivery::Settings;

use super::World;
use crate::support::database::{Database, on_both};
use crate::support::node::callback;

/// Senders remember secrets for a moment of real time, so each stage has a sender of its own.
async fn send_afresh(world: &mut World) -> Vec<String> {
    let before = world.receiver.count();
    world.send_by(Settings::default(), 0.0).await;
    world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.send().await;
    let log = world.receiver.log();
    assert_eq!(log.len(), before + 1);
    let signatures = log[before].header("webhook-signature").expect("it is signed");
    signatures.split(' ').map(str::to_owned).collect()
}

on_both!(async both_secrets_sign_until_the_overlap_is_over);
async fn both_secrets_sign_until_the_overlap_is_over(database: Database) {
    let mut world = World::start(&database).await;
    let (application, old) = (world.caller.application, world.secret.clone());
    let verifies =
        |world: &World, secret: &str| world.receiver.log().last().unwrap().verify(secret).is_ok();
    assert_eq!(send_afresh(&mut world).await.len(), 1);
    assert!(verifies(&world, &old));

    let new = world.node.engine.rotate_secret(application, 60).await.unwrap();
    assert_ne!(old, new);
    assert_eq!(send_afresh(&mut world).await.len(), 2);
    assert!(verifies(&world, &old) && verifies(&world, &new));
    world.wait(Duration::from_millis(59_999)).await;
    assert_eq!(send_afresh(&mut world).await.len(), 2, "to the end of the overlap");
    world.wait(Duration::from_millis(1)).await;
    assert_eq!(send_afresh(&mut world).await.len(), 1);
    assert!(!verifies(&world, &old) && verifies(&world, &new));

    // A rotation does not lengthen the life of what is on its way out.
    let newer = world.node.engine.rotate_secret(application, 10).await.unwrap();
    world.node.clock.shift_millis(1);
    let newest = world.node.engine.rotate_secret(application, 60).await.unwrap();
    let signatures = send_afresh(&mut world).await;
    assert_eq!(signatures.len(), 3);
    let log = world.receiver.log();
    let seconds: i64 = log.last().unwrap().header("webhook-timestamp").unwrap().parse().unwrap();
    let official = standardwebhooks::Webhook::new(&newest).unwrap();
    let request = log.last().unwrap();
    let first = official.sign(request.webhook_id(), seconds, &request.body).unwrap();
    assert_eq!(signatures[0], first, "the newest signs first");
    world.wait(Duration::from_secs(10)).await;
    assert_eq!(send_afresh(&mut world).await.len(), 2);
    assert!(!verifies(&world, &new) && verifies(&world, &newer) && verifies(&world, &newest));
    let at_once = world.node.engine.rotate_secret(application, 0).await.unwrap();
    assert_eq!(send_afresh(&mut world).await.len(), 1, "without an overlap the old ones end");
    assert!(!verifies(&world, &newest) && verifies(&world, &at_once));
}
