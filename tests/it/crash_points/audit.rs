//! What must be true of an application's rows once all is quiet, whatever has happened before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use ringback::engine::StoredJob;
use ringback::ids::Key;
use ringback::lifecycle::{EventType, Status, callback_default, endpoint_default, pattern_matches};
use ringback::store::{Connection, FromRow, Statement, jobs};
use uuid::Uuid;

use crate::support::node::Node;
use crate::support::receiver::Receiver;

#[derive(QueryableByName)]
struct JobLine {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Binary)]
    public_id: Vec<u8>,
    #[diesel(sql_type = Nullable<BigInt>)]
    receiver_id: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    status: Option<i64>,
    #[diesel(sql_type = BigInt)]
    live: i64,
}

#[derive(QueryableByName)]
struct MemberLine {
    #[diesel(sql_type = BigInt)]
    group_id: i64,
    #[diesel(sql_type = BigInt)]
    status: i64,
}

#[derive(QueryableByName)]
struct EventLine {
    #[diesel(sql_type = BigInt)]
    subject_id: i64,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Text)]
    event_type: String,
}

#[derive(QueryableByName)]
struct GroupLine {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    sealed: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    receiver_id: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    completed_at: Option<i64>,
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = BigInt)]
    success: i64,
    #[diesel(sql_type = BigInt)]
    error: i64,
    #[diesel(sql_type = BigInt)]
    stopped: i64,
}

#[derive(QueryableByName)]
struct ReceiverLine {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    events: Option<String>,
}

#[derive(QueryableByName)]
struct DeliveryLine {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    receiver_id: i64,
    #[diesel(sql_type = BigInt)]
    subject_id: i64,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = BigInt)]
    status: i64,
    #[diesel(sql_type = Binary)]
    event_id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = BigInt)]
    live: i64,
}

#[derive(QueryableByName)]
struct AttemptLine {
    #[diesel(sql_type = BigInt)]
    delivery_id: i64,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    outcome: String,
}

fn rows<T: FromRow>(connection: &mut Connection, sql: &'static str, application: Key) -> Vec<T> {
    connection.load(Statement::new(sql).bind(application)).expect("rows")
}

/// Audits one application whose work is all done.
pub async fn audit(
    connection: &mut Connection,
    node: &Node,
    application: Key,
    receiver: &Receiver,
) {
    let events = gapless_events(connection, application);
    let wanted = jobs_tell_one_story(connection, node, application, &events).await;
    let wanted: BTreeSet<_> =
        wanted.into_iter().chain(groups_add_up(connection, application, &events)).collect();
    let delivered = deliveries_are_those_owed(connection, application, &events, &wanted);
    each_delivery_arrived(receiver, &delivered);
}

type Events = BTreeMap<Key, Vec<String>>;

/// Types by subject, in order; numbers are 1, 2, 3 …
fn gapless_events(connection: &mut Connection, application: Key) -> Events {
    let sql = "SELECT subject_id, sequence, type AS event_type FROM events \
               WHERE application_id = ? ORDER BY subject_id, sequence";
    let mut events = Events::new();
    for line in rows::<EventLine>(connection, sql, application) {
        let log = events.entry(line.subject_id).or_default();
        log.push(line.event_type);
        assert_eq!(line.sequence, log.len() as i64, "a gap in the events of {}", line.subject_id);
    }
    events
}

/// Rows, events and live rows of every job agree; subject and receiver of each that has one.
async fn jobs_tell_one_story(
    connection: &mut Connection,
    node: &Node,
    application: Key,
    events: &Events,
) -> Vec<(Key, Key)> {
    let sql = "SELECT id, public_id, receiver_id, status, \
               (SELECT COUNT(*) FROM live_jobs l WHERE l.id = jobs.id) AS live \
               FROM jobs WHERE application_id = ?";
    let mut told = Vec::new();
    for line in rows::<JobLine>(connection, sql, application) {
        assert!(line.status.is_some() && line.live == 0, "job {} is not at its end", line.id);
        let id = Uuid::from_slice(&line.public_id).unwrap();
        let row = jobs::find(connection, id).expect("a read").expect("the job");
        node.check_fold(&StoredJob::read(row).expect("a job")).await;
        let log = &events[&line.id];
        let is_end = |name: &&String| {
            ["job.succeeded", "job.failed", "job.stopped"].contains(&name.as_str())
        };
        assert_eq!(log.iter().filter(is_end).count(), 1, "one end: {log:?}");
        let end = log.iter().position(|name| is_end(&name)).unwrap();
        let after = |name: &String| ["job.trashed", "job.restored"].contains(&name.as_str());
        assert!(log[end + 1..].iter().all(after), "final is final: {log:?}");
        told.extend(line.receiver_id.map(|receiver| (line.id, receiver)));
    }
    told
}

/// Counts are those of the jobs, and `group.completed` came once or not at all.
fn groups_add_up(
    connection: &mut Connection,
    application: Key,
    events: &Events,
) -> Vec<(Key, Key)> {
    let sql = "SELECT group_id, status FROM jobs WHERE application_id = ? AND group_id IS NOT NULL";
    let mut ends: HashMap<Key, [i64; 3]> = HashMap::new();
    for job in rows::<MemberLine>(connection, sql, application) {
        let place = match Status::from_number(job.status) {
            Status::Success => 0,
            Status::Error => 1,
            _ => 2,
        };
        ends.entry(job.group_id).or_default()[place] += 1;
    }
    let sql = "SELECT id, sealed, receiver_id, completed_at, total, success, error, stopped \
               FROM groups WHERE application_id = ?";
    let mut told = Vec::new();
    for group in rows::<GroupLine>(connection, sql, application) {
        let counted = ends.get(&group.id).copied().unwrap_or_default();
        assert_eq!([group.success, group.error, group.stopped], counted, "group {}", group.id);
        assert_eq!(group.total, counted.iter().sum::<i64>());
        let log = events.get(&group.id).cloned().unwrap_or_default();
        let expected: &[&str] = if group.sealed == 1 { &["group.completed"] } else { &[] };
        assert_eq!(log, expected, "group {}", group.id);
        assert_eq!(group.completed_at.is_some(), group.sealed == 1);
        told.extend(group.receiver_id.map(|receiver| (group.id, receiver)));
    }
    told
}

/// Deliveries are the events times the receivers that want them; all arrived. Their webhook-ids.
fn deliveries_are_those_owed(
    connection: &mut Connection,
    application: Key,
    events: &Events,
    told: &BTreeSet<(Key, Key)>,
) -> BTreeSet<String> {
    let sql = "SELECT id, kind, events FROM receivers WHERE application_id = ?";
    let receivers: HashMap<Key, ReceiverLine> = rows(connection, sql, application)
        .into_iter()
        .map(|line: ReceiverLine| (line.id, line))
        .collect();
    // Endpoints are told of everything, callbacks of what they were given for.
    let endpoints = receivers.values().filter(|receiver| receiver.kind == "endpoint");
    let told_all =
        endpoints.flat_map(|endpoint| events.keys().map(|subject| (*subject, endpoint.id)));
    let told: BTreeSet<(Key, Key)> = told.iter().copied().chain(told_all).collect();
    let mut owed = BTreeSet::new();
    for (subject, receiver) in told {
        for (name, sequence) in events.get(&subject).into_iter().flatten().zip(1i64..) {
            let event = EventType::ALL.into_iter().find(|event| event.as_str() == name).unwrap();
            if wants(&receivers[&receiver], event) {
                owed.insert((subject, sequence, receiver));
            }
        }
    }
    let sql = "SELECT id, receiver_id, subject_id, sequence, status, event_id, attempts, \
               (SELECT COUNT(*) FROM live_deliveries l WHERE l.id = deliveries.id) AS live \
               FROM deliveries WHERE application_id = ?";
    let lines = rows::<DeliveryLine>(connection, sql, application);
    let made: BTreeSet<_> =
        lines.iter().map(|line| (line.subject_id, line.sequence, line.receiver_id)).collect();
    assert_eq!(made, owed, "deliveries are events times receivers");
    assert_eq!(made.len(), lines.len(), "and each once");
    let sql = "SELECT delivery_id, number, outcome FROM attempts WHERE delivery_id IN \
               (SELECT id FROM deliveries WHERE application_id = ?) ORDER BY delivery_id, number";
    let mut attempts: HashMap<Key, Vec<(i64, String)>> = HashMap::new();
    for line in rows::<AttemptLine>(connection, sql, application) {
        attempts.entry(line.delivery_id).or_default().push((line.number, line.outcome));
    }
    for line in &lines {
        assert_eq!((line.status, line.live), (1, 0), "delivery {} is delivered", line.id);
        let log = &attempts[&line.id];
        assert!(log.iter().map(|(number, _)| *number).eq(1..=line.attempts), "{log:?}");
        let (last, before) = log.split_last().unwrap();
        assert_eq!(last.1, "delivered", "{log:?}");
        let closed =
            |(_, outcome): &(i64, String)| ["failed", "unknown"].contains(&outcome.as_str());
        assert!(before.iter().all(closed), "{log:?}");
    }
    lines.iter().map(|line| Uuid::from_slice(&line.event_id).unwrap().to_string()).collect()
}

fn wants(receiver: &ReceiverLine, event: EventType) -> bool {
    match &receiver.events {
        Some(text) => {
            let patterns: Vec<String> = serde_json::from_str(text).unwrap();
            patterns.iter().any(|pattern| pattern_matches(pattern, event))
        }
        None if receiver.kind == "endpoint" => endpoint_default(event),
        None => callback_default(event),
    }
}

/// Each came at least once, nothing else came, and a repetition is the same to the byte.
fn each_delivery_arrived(receiver: &Receiver, webhook_ids: &BTreeSet<String>) {
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for request in receiver.log() {
        let id = request.webhook_id().to_owned();
        let first = bodies.entry(id).or_insert_with(|| request.body.clone());
        assert_eq!(*first, request.body, "a delivery never changes");
    }
    let arrived: BTreeSet<String> = bodies.into_keys().collect();
    assert_eq!(&arrived, webhook_ids, "what is owed arrives, and nothing else");
}
