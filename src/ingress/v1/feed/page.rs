//! Some events behind a place, as text, within bounds of number and of size.
//!
//! An event may be as large as a submission, so numbers alone bound nothing.

use crate::engine::{Engine, EngineError, FeedFilter};
use crate::ids::Key;
use crate::ingress::problem::Problem;
use crate::ingress::v1::query::invalid;

/// Events that are asked for at once: few at first, since they may be large, and more while they
/// turn out to be small.
const FIRST_STEP: usize = 4;
const MOST_STEP: usize = 64;
const SMALL: usize = 2 * 1024;
/// Where a filter leaves much out, so many steps come to few events or none.
const MOST_STEPS: usize = 24;

/// What a page may hold.
#[derive(Clone, Copy)]
pub struct Room {
    pub events: usize,
    /// One event may go beyond them.
    pub bytes: usize,
}

/// An event as text.
pub struct Event {
    pub position: i64,
    pub event_type: String,
    pub json: String,
}

/// See the module.
pub struct Page {
    /// In order.
    pub events: Vec<Event>,
    /// Where the next page starts.
    pub next: i64,
    /// Whether there may be more now.
    pub more: bool,
}

impl Page {
    /// The next events that a filter wants behind a place that `named` gave. A page may come back
    /// short while there are more.
    pub async fn read(
        engine: &Engine,
        application: Key,
        (after, named): (i64, &str),
        filter: &FeedFilter,
        room: Room,
    ) -> Result<Page, Problem> {
        let mut page = Page { events: Vec::new(), next: after, more: true };
        let (mut bytes, mut step) = (0, FIRST_STEP);
        for _ in 0..MOST_STEPS {
            let wanted = room.events.saturating_sub(page.events.len()).min(step);
            if !page.more || wanted == 0 {
                break;
            }
            let found = engine.feed_page(application, page.next, filter, wanted).await;
            let found = found.map_err(|error| refused(error, named))?;
            for one in found.events {
                if bytes >= room.bytes {
                    return Ok(page);
                }
                let json = serde_json::to_string(&one.event).map_err(Problem::internal)?;
                bytes += json.len();
                page.next = one.position;
                let event_type = one.event.event_type;
                page.events.push(Event { position: one.position, event_type, json });
            }
            page.next = found.next;
            page.more = found.more;
            let small = bytes <= page.events.len() * SMALL;
            step = if small { (2 * step).min(MOST_STEP) } else { FIRST_STEP };
        }
        Ok(page)
    }
}

fn refused(error: EngineError, named: &str) -> Problem {
    match error {
        EngineError::BeyondFeed { given, head } => {
            invalid(named, format!("is {given}, which is not in this feed; allowed: 0 to {head}"))
        }
        error => error.into(),
    }
}
