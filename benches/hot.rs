//! The pure parts that every job goes through, one by one, so that a regression is seen where it
//! happens: `cargo bench`. Must not measure anything that waits for a disk or a network.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringback::clock::Clock;
use ringback::egress::{Client, Policy, ScriptedResolver, Target};
use ringback::engine::{Engine, Parts, Sealer};
use ringback::files::Blobs;
use ringback::formats::{
    AttemptView, DeliveryFormat as _, Ed25519Key, EventView, Formats, Signature, SigningKeys,
    SigningSecret, Standard,
};
use ringback::handlers;
use ringback::ids::{Timestamp, new_id};
use ringback::ingress::{Settings, State, v1};
use ringback::lifecycle::{Command, JobEvent, JobState, Submission, decide, fold};
use ringback::store::{Access, Store};
use serde_json::value::RawValue;

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);
const PUBLIC_URL: &str = "https://ringback.test";

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

fn submission() -> Submission {
    Submission {
        job_type: "urn:job:noop".to_owned(),
        specification: raw(r#"{"durationSeconds":0}"#),
        sources: Vec::new(),
        group_id: new_id(),
        metadata: Some(raw(r#"{"order":"4711"}"#)),
        priority: 0,
        queue: "default".to_owned(),
        run_at: NOW,
        expires_at: None,
        max_attempts: 3,
        timeout_seconds: None,
        callback: Some(raw(r#"{"url":"https://receiver.test/hook"}"#)),
        retry_of: None,
        parent_id: None,
        issuer: "shop".to_owned(),
        actor: "key".to_owned(),
        request_id: "request".to_owned(),
        has_secrets: false,
    }
}

fn started() -> JobState {
    let created = JobEvent::Created(Box::new(submission()));
    let state = fold([(&created, NOW)]).expect("a first event");
    let start = Command::Start { node: "node".to_owned() };
    decide(&state, start, NOW).expect("it may start").next
}

fn decide_and_evolve(criterion: &mut Criterion) {
    let (state, payload) = (started(), raw(r#"{"ok":true}"#));
    let token = state.token;
    criterion.bench_function("decide/succeed", |bencher| {
        bencher.iter_batched(
            || Command::Succeed { token, payload: payload.clone() },
            |command| decide(black_box(&state), command, NOW),
            BatchSize::SmallInput,
        );
    });
}

/// What a webhook about a small job holds.
fn data() -> Box<RawValue> {
    let job = serde_json::json!({
        "id": new_id(), "groupId": new_id(), "type": "urn:job:noop", "issuer": "shop",
        "status": "success", "sources": [], "specification": {"durationSeconds": 0},
        "result": {"code": 0, "message": "OK", "payload": {}}, "progress": 1.0, "attempt": 1,
        "dateCreated": NOW.to_string(), "dateUpdated": NOW.to_string(), "queue": "default",
        "metadata": {"order": "4711"}, "callback": {"url": "https://receiver.test/hook"},
    });
    raw(&job.to_string())
}

fn render_and_sign(criterion: &mut Criterion) {
    let (data, timestamp, standard) = (data(), NOW.to_string(), Standard::default());
    let event = EventView {
        id: new_id(),
        event_type: "job.succeeded",
        timestamp: &timestamp,
        sequence: 3,
        subject_type: "job",
        subject_id: new_id(),
        data: &data,
    };
    criterion.bench_function("render/standard", |bencher| {
        bencher.iter(|| standard.body(black_box(&event), PUBLIC_URL));
    });
    let body = standard.body(&event, PUBLIC_URL);
    let keys = SigningKeys {
        secrets: vec![SigningSecret::from_key(&[7; 32]).expect("a key")],
        ed25519: vec![Ed25519Key::from_seed(&[7; 32]).expect("a seed")],
    };
    let webhook_id = event.id.to_string();
    let attempt = AttemptView {
        webhook_id: &webhook_id,
        number: 1,
        timestamp_seconds: NOW.seconds(),
        event_type: event.event_type,
        redelivery: None,
    };
    for signature in Signature::ALL {
        criterion.bench_function(&format!("sign/{}", signature.as_str()), |bencher| {
            bencher.iter(|| standard.headers(&attempt, &keys, signature, black_box(&body), None));
        });
    }
}

fn judge(criterion: &mut Criterion) {
    let policy = Policy::default();
    let addresses: Vec<IpAddr> = ["93.184.216.34", "10.0.0.1", "169.254.169.254", "2606:2800::1"]
        .map(|text| text.parse().expect("an address"))
        .to_vec();
    criterion.bench_function("judge/address", |bencher| {
        bencher.iter(|| {
            addresses.iter().filter(|address| policy.judge_address(**address, 443).is_ok()).count()
        });
    });
    criterion.bench_function("judge/url", |bencher| {
        bencher.iter(|| Target::parse(black_box("https://receiver.test/hook?shop=1"), &policy));
    });
}

/// What a request is read with; its database is there and not asked.
async fn state(folder: &std::path::Path) -> State {
    let url = format!("sqlite://{}", folder.join("bench.db").display());
    let all = handlers::all();
    let engine = Engine::start(Parts {
        store: Store::open(&url, Access::Server).expect("a database"),
        clock: Clock::system(),
        catalog: handlers::catalog(&all),
        formats: Formats::standard_only(),
        sealer: Sealer::new(&[9; 32]).expect("a sealer"),
        public_url: PUBLIC_URL.to_owned(),
        disable_after: Duration::from_secs(60),
        lane_rate: None,
        observe_batch: Box::new(|_| {}),
    });
    let engine = Arc::new(engine.await.expect("an engine"));
    let egress = Client::new(Policy::default(), Arc::new(ScriptedResolver::new()));
    let blobs = Blobs::local(&folder.join("files")).expect("a folder");
    State::new(engine, egress, blobs, Arc::default(), Settings::default())
}

fn parse(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let state = runtime.block_on(state(folder.path()));
    let body = serde_json::json!({
        "type": "urn:job:noop",
        "specification": {"durationSeconds": 0},
        "metadata": {"order": "4711"},
        "callbackUrl": "https://receiver.test/hook",
    });
    let body = body.to_string();
    assert!(v1::jobs::parse(&state, body.as_bytes()).is_ok());
    criterion.bench_function("parse/submission", |bencher| {
        bencher.iter(|| v1::jobs::parse(&state, black_box(body.as_bytes())));
    });
}

criterion_group!(hot, decide_and_evolve, render_and_sign, judge, parse);
criterion_main!(hot);
