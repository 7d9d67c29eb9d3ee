//! What is logged by tasks of this thread, for tests about what operators are told.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;

/// Warnings and errors since it was made, until it is dropped.
pub struct Log {
    pages: Pages,
    _listening: DefaultGuard,
}

#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Write for Pages {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Tasks of other threads are not heard: the test runs on a runtime of one thread.
    pub fn of_this_thread() -> Log {
        let pages = Pages::default();
        let kept = pages.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || kept.clone())
            .finish();
        Log { pages, _listening: tracing::subscriber::set_default(subscriber) }
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.pages.0.lock().unwrap()).into_owned()
    }
}
