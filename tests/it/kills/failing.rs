//! Ten thousand deliveries to a receiver that fails three times in ten, and a server that is killed
//! again and again meanwhile: everything arrives, and what is known to have arrived is not repeated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use ringback::engine::EndpointSettings;
use ringback::store::{Connection, FromRow, Statement};
use serde_json::json;
use uuid::Uuid;

use crate::support::chance::Chance;
use crate::support::database::{Backend, Database, on_both};
use crate::support::endpoints::Registry;
use crate::support::process::{Application, Server};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::{eventually, within};

const SEED: u64 = 20_260_105;
const PATIENCE: Duration = Duration::from_secs(180);
const KILLS: usize = 5;
const ENDPOINTS: usize = 4;
const JOBS: usize = 1_250;
/// Each job is born and ends.
const DELIVERIES: usize = ENDPOINTS * JOBS * 2;

/// Ten failures in a row happen by chance once in ten runs or so: then the pause is a short one.
const SETTINGS: [&str; 8] = [
    "--log-filter",
    "error",
    "--egress-allow",
    "127.0.0.0/8",
    "--breaker-seconds",
    "1",
    "--retry-schedule-seconds",
    "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
];

/// What the receiver made of the tries of each delivery: path and webhook-id, then number of the
/// attempt and whether it was received, in the order of arrival.
type Arrivals = BTreeMap<(String, String), Vec<(i64, bool)>>;

fn failing_receiver() -> (Receiver, Arc<Mutex<Arrivals>>) {
    let receiver = Receiver::start();
    let arrivals = Arc::<Mutex<Arrivals>>::default();
    let chance = Arc::new(Mutex::new(Chance::seeded(SEED)));
    for endpoint in 0..ENDPOINTS {
        let path = format!("/{endpoint}");
        let (arrivals, chance) = (Arc::clone(&arrivals), Arc::clone(&chance));
        receiver.on_with(&path.clone(), move |request| {
            let number = chance.lock().unwrap().below(100);
            let key = (path.clone(), request.webhook_id().to_owned());
            let attempt = request.header("webhook-attempt").expect("a number");
            let attempt = attempt.parse().expect("a number");
            arrivals.lock().unwrap().entry(key).or_default().push((attempt, number >= 30));
            match number {
                0..25 => Reply::status(500),
                25..30 => Reply::status(429),
                _ => Reply::ok(),
            }
        });
    }
    (receiver, arrivals)
}

#[derive(QueryableByName)]
struct CountLine {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct AttemptLine {
    #[diesel(sql_type = Binary)]
    endpoint: Vec<u8>,
    #[diesel(sql_type = Binary)]
    event_id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    status: i64,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    outcome: String,
    #[diesel(sql_type = Nullable<Text>)]
    error_code: Option<String>,
}

fn rows<T: FromRow>(connection: &mut Connection, sql: &'static str) -> Vec<T> {
    connection.load(Statement::new(sql)).expect("rows")
}

fn count(connection: &mut Connection, sql: &'static str) -> usize {
    let lines: Vec<CountLine> = rows(connection, sql);
    usize::try_from(lines[0].count).expect("a count")
}

on_both!(what_was_received_is_not_sent_again_though_servers_die);
fn what_was_received_is_not_sent_again_though_servers_die(database: Database) {
    let application = Application::create(&database, "shop");
    let (receiver, arrivals) = failing_receiver();
    let registry = Registry::of(&database, &application);
    let settings = EndpointSettings {
        // A job that dies with three servers fails by the rules.
        events: Some(["job.created", "job.succeeded", "job.failed"].map(str::to_owned).into()),
        ..EndpointSettings::default()
    };
    let paths: BTreeMap<Uuid, String> = (0..ENDPOINTS)
        .map(|number| {
            let endpoint =
                registry.register(&receiver.url(&format!("/{number}")), settings.clone());
            receiver.trust(&endpoint.secret);
            (endpoint.id, format!("/{number}"))
        })
        .collect();
    drop(registry);
    let begun = Instant::now();
    // On Postgres the other one goes on.
    let servers = if database.backend() == Backend::Postgres { 2 } else { 1 };
    let mut servers: Vec<Server> = (0..servers).map(|_| Server::on(&database, &SETTINGS)).collect();
    let job = json!({ "type": "urn:job:noop", "specification": {} });
    for jobs in [JOBS - 1_000, 1_000] {
        let batch = json!({ "jobs": vec![job.clone(); jobs] });
        servers[0].client_of(&application).post("/v1/jobs/batch", &batch).expect(202);
    }

    let mut chance = Chance::seeded(SEED + 1);
    for kill in 1..=KILLS {
        let enough = DELIVERIES * kill / (KILLS + 1);
        receiver.wait_for(enough, PATIENCE);
        let moment = chance.moment(Duration::from_millis(300));
        let _not_a_condition = within(moment, || None::<()>);
        let place = kill % servers.len();
        servers[place].sigkill();
        servers[place].start_again();
    }
    let killed_for = begun.elapsed();
    let mut connection = database.connect();
    eventually("everything is delivered", PATIENCE, || {
        let made = count(&mut connection, "SELECT COUNT(*) AS count FROM deliveries");
        let live = count(&mut connection, "SELECT COUNT(*) AS count FROM live_deliveries");
        (made == DELIVERIES && live == 0).then_some(())
    });

    let sql = "SELECT r.public_id AS endpoint, d.event_id, d.status, a.number, a.outcome, \
               a.error_code FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
               JOIN attempts a ON a.delivery_id = d.id ORDER BY d.id, a.number";
    let mut recorded: BTreeMap<(String, String), Vec<AttemptLine>> = BTreeMap::new();
    for line in rows::<AttemptLine>(&mut connection, sql) {
        let endpoint = Uuid::from_slice(&line.endpoint).expect("an id");
        let event = Uuid::from_slice(&line.event_id).expect("an id").to_string();
        recorded.entry((paths[&endpoint].clone(), event)).or_default().push(line);
    }
    let arrivals = arrivals.lock().unwrap();
    assert_eq!((recorded.len(), arrivals.len()), (DELIVERIES, DELIVERIES));
    let (mut unknown, mut repeated) = (0, 0);
    for (delivery, attempts) in &recorded {
        let arrived = &arrivals[delivery];
        agree(delivery, attempts, arrived);
        unknown += attempts.iter().filter(|attempt| attempt.outcome == "unknown").count();
        repeated += arrived.iter().filter(|(_, received)| *received).count() - 1;
    }
    for request in receiver.log() {
        request.signed();
    }
    assert!(unknown > 0, "no kill hit a delivery that was under way");
    eprintln!(
        "{:?}: {DELIVERIES} deliveries, {} requests, {KILLS} kills within {killed_for:?}, all in \
         {:?}; {unknown} attempts of unknown outcome, {repeated} deliveries received twice",
        database.backend(),
        receiver.count(),
        begun.elapsed(),
    );
}

/// What the attempt log says of one delivery, against what its receiver saw.
fn agree(delivery: &(String, String), attempts: &[AttemptLine], arrived: &[(i64, bool)]) {
    let log: Vec<(i64, &str, Option<&str>)> = attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.outcome.as_str(), attempt.error_code.as_deref()))
        .collect();
    let told = format!("{delivery:?}: recorded {log:?}, arrived {arrived:?}");
    assert!(attempts.iter().all(|attempt| attempt.status == 1), "it is not delivered: {told}");
    let numbers = attempts.iter().map(|attempt| attempt.number);
    assert!(numbers.eq(1..=attempts.len() as i64), "{told}");
    let (last, before) = attempts.split_last().expect("an attempt");
    assert_eq!(last.outcome, "delivered", "{told}");
    assert_eq!(arrived.last(), Some(&(last.number, true)), "nothing follows a success: {told}");
    assert!(arrived.is_sorted_by_key(|(number, _)| *number), "{told}");
    for attempt in before {
        let seen: Vec<bool> =
            arrived.iter().filter(|one| one.0 == attempt.number).map(|one| one.1).collect();
        match (attempt.outcome.as_str(), seen.as_slice()) {
            ("failed", [false]) => {}
            // Killed before it was sent, or before what came of it was recorded.
            ("unknown", [] | [_]) => assert_eq!(attempt.error_code.as_deref(), Some("sender_lost")),
            _ => panic!("attempt {} came to {seen:?}: {told}", attempt.number),
        }
    }
    let sent = arrived.iter().filter(|one| one.0 == last.number).count();
    assert_eq!(sent, 1, "once each: {told}");
}
