//! Random answers, pauses, deaths and demands; what came is checked against the order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ringback::engine::{Backlog, Ordering, delivery_manner};
use ringback::formats::Formats;
use uuid::Uuid;

use super::claim;
use crate::support::chance::Chance;
use crate::support::database::{Database, on_both};
use crate::support::node::Node;
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, ordered};

const SEEDS: std::ops::Range<u64> = 0..4;
const ACTS: usize = 50;
/// Tries of a delivery come after so many seconds each.
const RETRIES: [u64; 2] = [5, 5];

/// What the receiver said to a request that had its place in the order.
struct Answer {
    event: String,
    job: String,
    sequence: i64,
    received: bool,
}

struct Play<'a> {
    database: &'a Database,
    shop: Shop,
    endpoint: Uuid,
    chance: Chance,
    answers: Arc<Mutex<Vec<Answer>>>,
    skipped: HashSet<String>,
    /// Those that somebody asked for again had ended before.
    redelivered: HashSet<String>,
}

impl<'a> Play<'a> {
    async fn begin(database: &'a Database, ordering: Ordering, seed: u64) -> Play<'a> {
        let shop = Shop::open(database).await;
        let endpoint = shop.register("/hook", ordered(ordering, &RETRIES)).await;
        let answers = Arc::default();
        let play = Play {
            database,
            shop,
            endpoint,
            chance: Chance::seeded(seed),
            answers,
            skipped: HashSet::new(),
            redelivered: HashSet::new(),
        };
        play.answer(Chance::seeded(seed + 1_000), 45);
        play
    }

    /// So many of a hundred requests are not received.
    fn answer(&self, mut chance: Chance, failing: u64) {
        let answers = Arc::clone(&self.answers);
        self.shop.receiver.on_with("/hook", move |received| {
            if received.header("webhook-redelivery").is_some() {
                return Reply::ok();
            }
            let reply = match chance.below(100) {
                roll if roll >= failing => Reply::ok(),
                roll if roll % 3 == 0 => Reply::status(503),
                roll if roll % 3 == 1 => Reply::status(400),
                _ => Reply::hang_up(),
            };
            let (body, event) = (received.json(), received.webhook_id().to_owned());
            let job = body["data"]["id"].as_str().unwrap().to_owned();
            let sequence = body["sequence"].as_i64().unwrap();
            let received = reply.is_ok();
            answers.lock().unwrap().push(Answer { event, job, sequence, received });
            reply
        });
    }

    async fn act(&mut self) {
        match self.chance.below(20) {
            0..=4 => {
                let count = usize::try_from(1 + self.chance.below(3)).unwrap();
                self.shop.run_jobs(count).await;
            }
            5..=8 => self.shop.send().await,
            9..=12 => {
                let seconds = 1 + self.chance.below(120);
                self.shop.send_after(seconds).await;
            }
            13..=14 => self.unblock().await,
            15 => self.switch().await,
            16 => self.redeliver().await,
            _ => self.die().await,
        }
    }

    /// Skips what holds the endpoint up, or tries it again.
    async fn unblock(&mut self) {
        let view = self.shop.endpoint(self.endpoint).await;
        let Some(blocker) = view.blocked_by else { return };
        let (engine, caller) = (&self.shop.node.engine, &self.shop.caller);
        if self.chance.below(2) == 0 {
            let event = self.shop.delivery(blocker).await.webhook_id;
            self.skipped.insert(event.to_string());
            engine.skip_delivery(caller, blocker).await.unwrap();
        } else {
            engine.redeliver(caller, blocker).await.unwrap();
        }
    }

    async fn switch(&self) {
        let (engine, caller) = (&self.shop.node.engine, &self.shop.caller);
        if self.shop.endpoint(self.endpoint).await.enabled {
            engine.disable_endpoint(caller, self.endpoint).await.unwrap();
        } else {
            engine.enable_endpoint(caller, self.endpoint, Backlog::Resume).await.unwrap();
        }
    }

    async fn redeliver(&mut self) {
        let mut ended = self.shop.owed_to(self.endpoint).await;
        ended.retain(|one| one.date_completed.is_some());
        if !ended.is_empty() {
            let chosen = usize::try_from(self.chance.below(ended.len() as u64)).unwrap();
            self.redelivered.insert(ended[chosen].webhook_id.to_string());
            let engine = &self.shop.node.engine;
            engine.redeliver(&self.shop.caller, ended[chosen].id).await.unwrap();
        }
    }

    /// The node goes with deliveries under way, some of them sent; another takes over.
    async fn die(&mut self) {
        self.shop.place().await;
        for owed in claim(&self.shop.node).await {
            // By hand nothing says that it stands outside the order.
            if owed.manner == delivery_manner::EVENT && self.chance.below(2) == 0 {
                let _nobody_will_know = self.shop.node.send_by_hand(&owed).await;
            }
        }
        self.shop.node.engine.leave().await.unwrap();
        let (clock, formats) = (self.shop.node.clock.clone(), Formats::standard_only());
        self.shop.node = Node::start_with(self.database, clock, formats).await;
        self.shop.node.engine.rescue().await.unwrap();
    }

    /// The receiver is well, and nobody wants anything any more.
    async fn end(&mut self) {
        self.answer(Chance::seeded(0), 0);
        if !self.shop.endpoint(self.endpoint).await.enabled {
            self.switch().await;
        }
        let mut rounds = 0;
        loop {
            // A lane that was closed for failures is open again by then.
            self.shop.send_after(15 * 60).await;
            self.unblock().await;
            let owed = self.shop.owed_to(self.endpoint).await;
            let Some(stuck) = owed.iter().find(|one| one.date_completed.is_none()) else { break };
            rounds += 1;
            assert!(rounds < 50, "{} of event {} is stuck", stuck.status, stuck.sequence);
        }
        assert_eq!(self.shop.endpoint(self.endpoint).await.state, "enabled");
    }

    async fn exhausted(&self) -> HashSet<String> {
        let owed = self.shop.owed_to(self.endpoint).await;
        let ended = owed.iter().filter(|one| one.status == "exhausted");
        ended.map(|one| one.webhook_id.to_string()).collect()
    }
}

async fn played(database: &Database, ordering: Ordering, seed: u64) -> (Play<'_>, Vec<String>) {
    let mut play = Play::begin(database, ordering, seed).await;
    for _ in 0..ACTS {
        play.act().await;
    }
    play.end().await;
    let feed = play.shop.feed_ids(&["job.*"]).await;
    let told: HashSet<String> =
        play.answers.lock().unwrap().iter().map(|answer| answer.event.clone()).collect();
    assert_eq!(told, feed.iter().cloned().collect(), "all of them were tried");
    // The lanes are the next play's.
    play.shop.node.engine.leave().await.unwrap();
    (play, feed)
}

on_both!(async strict_sends_nothing_before_what_stands_before_it);
async fn strict_sends_nothing_before_what_stands_before_it(database: Database) {
    for seed in SEEDS {
        let (play, feed) = played(&database, Ordering::Strict, seed).await;
        let mut place = 0;
        let mut over = false;
        for answer in play.answers.lock().unwrap().iter() {
            if answer.event != feed[place] {
                assert!(over, "seed {seed}: {} was not over", feed[place]);
                place += 1;
                assert_eq!(answer.event, feed[place], "seed {seed}: out of order");
            }
            over = answer.received || play.skipped.contains(&answer.event);
        }
        assert!(play.exhausted().await.is_subset(&play.skipped), "seed {seed}");
    }
}

on_both!(async per_job_sends_nothing_before_what_stands_before_it);
async fn per_job_sends_nothing_before_what_stands_before_it(database: Database) {
    for seed in SEEDS {
        let (play, _) = played(&database, Ordering::PerJob, seed).await;
        let given_up = play.exhausted().await;
        let mut jobs: HashMap<String, (i64, bool)> = HashMap::new();
        for answer in play.answers.lock().unwrap().iter() {
            let (at, over) = jobs.entry(answer.job.clone()).or_insert((0, true));
            if answer.sequence != *at {
                assert!(*over, "seed {seed}: {at} of {} was not over", answer.job);
                assert_eq!(answer.sequence, *at + 1, "seed {seed}: out of order");
            }
            let had_ended = |ended: &HashSet<String>| ended.contains(&answer.event);
            let ended = answer.received || had_ended(&given_up) || had_ended(&play.redelivered);
            (*at, *over) = (answer.sequence, ended);
        }
    }
}
