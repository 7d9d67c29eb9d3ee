//! Answers that go on until somebody ends them: how many an application has open here, and the
//! word for all of them that the server stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::problem::{Code, Problem};
use crate::ids::Key;

/// Streams of one application on one node at most.
pub const MOST_STREAMS: usize = 64;

/// The streams of this process.
pub struct Streams {
    open: Mutex<HashMap<Key, usize>>,
    ended: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams { open: Mutex::default(), ended: watch::Sender::new(false) }
    }
}

/// A seat among the streams of an application; given back when dropped.
pub struct Seat {
    streams: Arc<Streams>,
    application: Key,
}

impl Streams {
    /// A seat, while there is one.
    pub fn open(self: &Arc<Self>, application: Key) -> Result<Seat, Problem> {
        if self.are_ended() {
            return Err(Problem::new(Code::Unavailable, "the server is shutting down"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(application).or_default();
        if *count >= MOST_STREAMS {
            let detail = format!(
                "{count} streams are open; allowed: {MOST_STREAMS} at a time of an application on \
                 a node"
            );
            return Err(Problem::new(Code::RateLimited, detail));
        }
        *count += 1;
        Ok(Seat { streams: Arc::clone(self), application })
    }

    /// Ends all streams, now and from now on.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Comes back when all streams are to end.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // It fails only when there is no sender, and this is one.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether they are to end.
    pub fn are_ended(&self) -> bool {
        *self.ended.borrow()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.application) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.application);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_has_so_many_streams_and_no_more() {
        let streams = Arc::new(Streams::default());
        let mut seats: Vec<Seat> = (0..MOST_STREAMS).map(|_| streams.open(1).unwrap()).collect();
        let refused = streams.open(1).err().unwrap();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.detail.contains("64"), "{refused}");
        let other = streams.open(2).unwrap();
        seats.pop();
        seats.push(streams.open(1).unwrap());
        assert!(streams.open(1).is_err());
        drop((seats, other));
        assert!(streams.open.lock().unwrap().is_empty());
    }

    #[actix_web::test]
    async fn all_streams_hear_of_the_end() {
        let streams = Arc::new(Streams::default());
        let _seat = streams.open(1).unwrap();
        assert!(!streams.are_ended());
        streams.end();
        streams.ended().await;
        assert!(streams.are_ended());
        assert_eq!(streams.open(1).err().unwrap().code, Code::Unavailable);
    }
}
