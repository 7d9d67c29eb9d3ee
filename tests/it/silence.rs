//! The database answers a beat and then nothing any more.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::process::{Application, Server};
use crate::support::receiver::{Receiver, Reply};
use crate::support::stall::Stall;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_node_that_hears_nothing_after_a_beat_lets_its_work_go() {
    let mut cluster = Cluster::start();
    let database = Database::fresh_in(&cluster.url());
    let application = Application::create(&database, "shop");
    let source = Receiver::start();
    source.on("/file", [Reply::silence()]);
    let server = Server::on(&database, &["--egress-allow", "127.0.0.0/8"]);
    let specification = json!({
        "sourceUrl": source.url("/file"), "destination": {"path": "/file"},
    });
    let job = json!({ "type": "urn:job:import.file", "specification": specification });
    server.client_of(&application).post("/v1/jobs", &job).expect(202);
    source.wait_for(1, PATIENCE);
    assert_eq!(source.open_connections(), 1, "it is at work");

    // Its next beat finds another node, for which it frees lanes.
    let mut stall = Stall::of_updates(&database, "shards", "NEW.node_id IS NULL");
    let other = "INSERT INTO nodes (id, name, started_at, expires_at, guarded, leaving) \
                 VALUES (-1, 'other', 0, 9223372036854775807, 0, 0)";
    database.connect().batch(other).expect("SQL of ours");
    stall.wait_for_one();
    cluster.freeze();
    eventually("its work is dropped", PATIENCE, || (source.open_connections() == 0).then_some(()));
    drop(server);
    cluster.thaw();
}
