//! Who calls: the bearer key of a request, looked up once a second at most.
//!
//! A key that was revoked, or whose application was disabled, stops within two seconds on every
//! node. Must not know routes. Keys are held as hashes only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use tokio::time::Instant;

use super::problem::{Code, Problem};
use crate::engine::{Barred, Caller, Engine, EngineResult, lookup_of};
use crate::ids::Timestamp;

/// An answer of the database is used for so long …
const MAX_AGE: Duration = Duration::from_secs(2);
/// … and asked for anew, beside the requests that use it, from this age on.
const REFRESH_AGE: Duration = Duration::from_secs(1);
/// Keys that are remembered, wrong ones included.
const MAX_SLOTS: usize = 10_000;
/// Nothing that we ever handed out is longer.
const MAX_KEY_BYTES: usize = 512;
/// A use is noted so often at most.
const NOTE_MICROS: i64 = 60_000_000;

/// The callers of this process.
#[derive(Default)]
pub struct Authenticator {
    slots: RwLock<HashMap<String, Arc<Slot>>>,
}

/// What is known of one key.
#[derive(Default)]
struct Slot {
    known: Mutex<Option<Known>>,
    /// Held while the database is asked, so that a thousand requests ask once.
    gate: tokio::sync::Mutex<()>,
    /// When the database last gave no answer.
    failed_at: Mutex<Option<Instant>>,
    refreshing: AtomicBool,
    /// Time of the last use, and of the last one that was noted; 0 for never.
    used_at: AtomicI64,
    noted_at: AtomicI64,
}

#[derive(Clone)]
struct Known {
    /// Nobody's key when there is none.
    caller: Option<Arc<Caller>>,
    asked_at: Instant,
}

impl Authenticator {
    /// The caller that a request's key stands for.
    pub async fn caller(
        &self,
        engine: &Arc<Engine>,
        headers: &HeaderMap,
    ) -> Result<Arc<Caller>, Problem> {
        let lookup = lookup_of(bearer(headers)?);
        let slot = self.slot(&lookup);
        let now = engine.now();
        let caller = slot.resolve(engine, &lookup).await?;
        let caller = caller.ok_or_else(|| {
            Problem::new(Code::Unauthorized, "this API key is not known; was it mistyped?")
        })?;
        if let Some(refused) = refusal(&caller, now) {
            return Err(refused);
        }
        slot.used_at.store(now.0, Ordering::Relaxed);
        Ok(caller)
    }

    /// Writes down when keys were last used; called every few seconds.
    pub async fn flush_uses(&self, engine: &Engine) -> EngineResult<()> {
        let mut due = Vec::new();
        for slot in self.slots.read().unwrap_or_else(PoisonError::into_inner).values() {
            let used_at = slot.used_at.load(Ordering::Relaxed);
            let since = used_at.saturating_sub(slot.noted_at.load(Ordering::Relaxed));
            let caller = slot.peek().and_then(|known| known.caller);
            if let (true, Some(caller)) = (since >= NOTE_MICROS, caller) {
                due.push((Arc::clone(slot), caller.credential, used_at));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let uses = due.iter().map(|(_, key, at)| (*key, Timestamp(*at))).collect();
        engine.touch_credentials(uses).await?;
        for (slot, _, used_at) in due {
            slot.noted_at.store(used_at, Ordering::Relaxed);
        }
        Ok(())
    }

    fn slot(&self, lookup: &str) -> Arc<Slot> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(lookup) {
            return Arc::clone(slot);
        }
        drop(slots);
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_SLOTS {
            // Wrong keys go first; whoever sends ten thousand right ones pays with a look-up each.
            slots.retain(|_, slot| slot.peek().is_some_and(|known| known.caller.is_some()));
            if slots.len() >= MAX_SLOTS {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(lookup.to_owned()).or_default())
    }
}

impl Slot {
    fn peek(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fresh(&self) -> Option<Known> {
        self.peek().filter(|known| known.asked_at.elapsed() < MAX_AGE)
    }

    async fn resolve(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        lookup: &str,
    ) -> Result<Option<Arc<Caller>>, Problem> {
        let came = Instant::now();
        if let Some(known) = self.fresh() {
            if known.asked_at.elapsed() > REFRESH_AGE
                && !self.refreshing.swap(true, Ordering::AcqRel)
            {
                let (slot, engine) = (Arc::clone(self), Arc::clone(engine));
                let lookup = lookup.to_owned();
                tokio::spawn(async move {
                    // When this fails, the next request that finds nothing fresh says so.
                    let _ = slot.ask(&engine, lookup).await;
                    slot.refreshing.store(false, Ordering::Release);
                });
            }
            return Ok(known.caller);
        }
        let _gate = self.gate.lock().await;
        if let Some(known) = self.fresh() {
            return Ok(known.caller);
        }
        // Whoever asked while this request waited got no answer. Each asking for itself, one
        // after the other, would keep the last of a crowd waiting for minutes.
        if self.failed_at().is_some_and(|failed| failed >= came) {
            let detail = "the database did not answer another request with this key";
            return Err(Problem::new(Code::Unavailable, detail).with_retry_after(1));
        }
        let asked = self.ask(engine, lookup.to_owned()).await;
        if asked.is_err() {
            *self.failed_at() = Some(Instant::now());
        }
        Ok(asked?)
    }

    fn failed_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, engine: &Engine, lookup: String) -> EngineResult<Option<Arc<Caller>>> {
        // The answer is as old as the question.
        let asked_at = Instant::now();
        let caller = engine.authenticate(lookup).await?.map(Arc::new);
        let known = Known { caller: caller.clone(), asked_at };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(caller)
    }
}

/// The key of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refuse = |detail: &str| Problem::new(Code::Unauthorized, detail);
    let mut given = headers.get_all(AUTHORIZATION);
    let how = "send an API key as `Authorization: Bearer <apiKey>`";
    let value = match (given.next(), given.next()) {
        (Some(value), None) => value.to_str().map_err(|_| refuse(how))?,
        (None, _) => return Err(refuse(how)),
        (Some(_), Some(_)) => return Err(refuse("Authorization is given twice")),
    };
    let (scheme, key) = value.trim().split_once(' ').unwrap_or((value, ""));
    let key = key.trim();
    let plausible =
        (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !scheme.eq_ignore_ascii_case("bearer") || !plausible {
        return Err(refuse(how));
    }
    Ok(key)
}

/// Why a known key may do nothing now. Its end is judged by the clock, not by when it was read.
fn refusal(caller: &Caller, now: Timestamp) -> Option<Problem> {
    let barred = caller
        .barred
        .or_else(|| caller.expires_at.filter(|end| *end <= now).map(|_| Barred::Expired))?;
    let (code, detail) = match barred {
        Barred::Revoked => (Code::KeyExpired, "this API key was revoked"),
        Barred::Expired => (Code::KeyExpired, "this API key has expired"),
        Barred::Disabled => {
            (Code::ApplicationDisabled, "this application was disabled by the operator")
        }
    };
    Some(Problem::new(code, detail))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn parsed(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        bearer(&headers).ok().map(str::to_owned)
    }

    #[test]
    fn a_bearer_key_is_one_word() {
        assert_eq!(parsed(&["Bearer k"]).as_deref(), Some("k"));
        assert_eq!(parsed(&["bEARER   k "]).as_deref(), Some("k"));
        let long = format!("Bearer {}", "k".repeat(MAX_KEY_BYTES + 1));
        for bad in ["", "Bearer", "Bearer ", "Basic k", "k", "Bearer a b", "Bearerk", &long] {
            assert_eq!(parsed(&[bad]), None, "{bad}");
        }
        assert_eq!(parsed(&[]), None);
        assert_eq!(parsed(&["Bearer k", "Bearer k"]), None);
    }

    #[test]
    fn a_key_ends_by_the_clock() {
        let mut caller = Caller {
            application: 1,
            application_id: uuid::Uuid::nil(),
            credential: 1,
            credential_id: uuid::Uuid::nil(),
            scopes: Vec::new(),
            expires_at: Some(Timestamp(10)),
            rate_per_second: None,
            rate_burst: None,
            barred: None,
        };
        assert!(refusal(&caller, Timestamp(9)).is_none());
        assert_eq!(refusal(&caller, Timestamp(10)).unwrap().code, Code::KeyExpired);
        caller.barred = Some(Barred::Disabled);
        assert_eq!(refusal(&caller, Timestamp(9)).unwrap().code, Code::ApplicationDisabled);
    }
}
