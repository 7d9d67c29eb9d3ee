//! What goes out with a request, and what does not go out at all.

use super::{World, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::node::callback;

on_both!(async what_cannot_be_signed_is_not_sent);
async fn what_cannot_be_signed_is_not_sent(database: Database) {
    let world = World::start(&database).await;
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    let nothing_signs = "UPDATE credentials SET revoked_at = 1 WHERE kind = 'signing_secret'; \
                         UPDATE applications SET version = version + 1";
    database.connect().batch(nothing_signs).expect("SQL of ours");
    world.node.send().await;
    assert_eq!(world.receiver.count(), 0);
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, outcomes(&delivery)), ("pending", vec![(1, "failed")]));
    let log = delivery.attempt_log.as_ref().expect("the detail has attempts");
    assert_eq!(log[0].error_code.as_deref(), Some("secrets_unavailable"));
}

on_both!(async a_receiver_may_have_a_name_of_its_own_for_us);
async fn a_receiver_may_have_a_name_of_its_own_for_us(database: Database) {
    let world = World::start(&database).await;
    let mut named = callback(&world.receiver.url("/named"));
    named.headers = vec![("User-Agent".to_owned(), "Acme".to_owned())];
    for callback in [named, callback(&world.receiver.url("/plain"))] {
        world.done(callback).await;
    }
    world.node.send().await;
    let names = |path: &str| {
        let request = world.receiver.log_of(path).remove(0);
        let names = request.headers.get_all("user-agent").into_iter();
        names.map(|name| name.to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/named"), ["Acme"]);
    let plain = names("/plain");
    assert!(plain.len() == 1 && plain[0].starts_with("ringback/"), "{plain:?}");
}
