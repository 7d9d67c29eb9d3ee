//! From a host name to its addresses, one question per request.
//!
//! Must not judge or cache: every request is entitled to an answer that was not known before it
//! asked, so that a changed answer meets the policy again. Requests that ask for the same name at
//! the same time share one lookup.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub trait Resolver: Send + Sync + 'static {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// A lookup occupies a thread for as long as the slowest name server likes, so names that never
/// answer must not take every thread of the runtime …
const RUNTIME_THREADS: usize = 64;
/// … and a name that is answered must not wait for those that are not: beyond that each lookup has a
/// thread of its own, of which there are more than deliveries can be under way.
const LOOKUPS_AT_ONCE: usize = 4_096;
/// What a system's resolver needs, with some to spare; only what it touches is taken.
const STACK_BYTES: usize = 512 * 1024;

/// Errors are shared between those who asked, hence the `Arc`.
type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type Pending = Arc<Mutex<HashMap<String, WeakShared<oneshot::Receiver<Answer>>>>>;

type Ask = fn(&str) -> io::Result<Arc<[IpAddr]>>;
type Asked = oneshot::Receiver<io::Result<Arc<[IpAddr]>>>;

/// The operating system's resolver, with its hosts file and search rules.
#[derive(Clone)]
pub struct SystemResolver {
    pending: Pending,
    permits: Arc<Semaphore>,
    of_runtime: Arc<Semaphore>,
    ask: Ask,
    stack_bytes: usize,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::asking(|host| {
            let addresses = (host, 0).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

impl Resolver for SystemResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let resolver = self.clone();
        Box::pin(async move {
            match resolver.join_lookup(host).await {
                Ok(Ok(addresses)) => Ok(addresses.to_vec()),
                Ok(Err(error)) => Err(io::Error::new(error.kind(), error)),
                Err(_abandoned) => Err(io::Error::other("the lookup was abandoned")),
            }
        })
    }
}

impl SystemResolver {
    fn asking(ask: Ask) -> Self {
        Self {
            pending: Pending::default(),
            permits: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
            of_runtime: Arc::new(Semaphore::new(RUNTIME_THREADS)),
            ask,
            stack_bytes: STACK_BYTES,
        }
    }

    fn join_lookup(self, host: String) -> Shared<oneshot::Receiver<Answer>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = pending.get(&host).and_then(WeakShared::upgrade) {
            return lookup;
        }
        let (mut sender, receiver) = oneshot::channel();
        let lookup = receiver.shared();
        // Only those who wait keep it: one that all have given up before its turn is not made.
        if let Some(weak) = lookup.downgrade() {
            pending.insert(host.clone(), weak);
        }
        drop(pending);
        let entry = PendingEntry { pending: Arc::clone(&self.pending), host: host.clone() };
        tokio::spawn(async move {
            let permit = tokio::select! {
                permit = Arc::clone(&self.permits).acquire_owned() => permit,
                () = sender.closed() => return,
            };
            let answer = match permit {
                Ok(permit) => self.look_up(host, permit).await,
                Err(error) => Err(Arc::new(io::Error::other(error))),
            };
            // Off the list before it is answered, so that nobody joins a lookup that is over.
            drop(entry);
            let _nobody_waits_any_more = sender.send(answer);
        });
        lookup
    }

    async fn look_up(&self, host: String, permit: OwnedSemaphorePermit) -> Answer {
        let permit = Arc::new(permit);
        let answer = match Arc::clone(&self.of_runtime).try_acquire_owned() {
            Ok(of_runtime) => self.on_the_runtime(host, (permit, of_runtime)),
            Err(_taken) => match self.on_a_thread_of_its_own(host.clone(), Arc::clone(&permit)) {
                Ok(answer) => answer,
                // Where there are no more threads to be had, it waits for one that is there.
                Err(_refused) => match Arc::clone(&self.of_runtime).acquire_owned().await {
                    Ok(of_runtime) => self.on_the_runtime(host, (permit, of_runtime)),
                    Err(error) => return Err(Arc::new(io::Error::other(error))),
                },
            },
        };
        match answer.await {
            Ok(answer) => answer.map_err(Arc::new),
            Err(ended) => Err(Arc::new(io::Error::other(ended))),
        }
    }

    fn on_the_runtime(&self, host: String, held: impl Send + 'static) -> Asked {
        let (lookup, answer) = self.lookup(host, held);
        tokio::task::spawn_blocking(lookup);
        answer
    }

    fn on_a_thread_of_its_own(&self, host: String, held: impl Send + 'static) -> io::Result<Asked> {
        let (lookup, answer) = self.lookup(host, held);
        let thread = std::thread::Builder::new().name("lookup".to_owned());
        thread.stack_size(self.stack_bytes).spawn(lookup)?;
        Ok(answer)
    }

    /// What a thread does, and where its answer comes. The thread holds what allowed it and not the
    /// waiting request: one that gives up frees nothing.
    fn lookup(
        &self,
        host: String,
        held: impl Send + 'static,
    ) -> (impl FnOnce() + Send + 'static, Asked) {
        let (sender, answer) = oneshot::channel();
        let ask = self.ask;
        let lookup = move || {
            let _nobody_waits_any_more = sender.send(ask(&host));
            drop(held);
        };
        (lookup, answer)
    }
}

/// Takes a lookup off the list however its task ends.
struct PendingEntry {
    pending: Pending,
    host: String,
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
    }
}

/// Answers from a script: each host has successive answers, of which the last one stays. A host
/// that is not in the script does not exist.
#[derive(Clone, Default)]
pub struct ScriptedResolver {
    answers: Arc<Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>>,
    lookups: Arc<std::sync::atomic::AtomicUsize>,
}

impl ScriptedResolver {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one more answer for `host`. An empty one means that the name does not exist.
    pub fn answer(self, host: &str, addresses: &[IpAddr]) -> Self {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(host.to_owned())
            .or_default()
            .push_back(addresses.to_vec());
        self
    }

    /// How many times it was asked.
    pub fn lookups(&self) -> usize {
        self.lookups.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Resolver for ScriptedResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.lookups.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match answers.get_mut(&host) {
            Some(left) if left.len() > 1 => left.pop_front(),
            Some(left) => left.front().cloned(),
            None => None,
        };
        let answer = match answer {
            Some(addresses) if !addresses.is_empty() => Ok(addresses),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
        };
        Box::pin(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_script_is_followed_and_its_last_answer_stays() {
        let one = IpAddr::from([192, 0, 2, 1]);
        let two = IpAddr::from([192, 0, 2, 2]);
        let resolver = ScriptedResolver::new().answer("a.test", &[one]).answer("a.test", &[two]);
        for expected in [one, two, two] {
            let answer = resolver.resolve("a.test".into()).await.expect("scripted");
            assert_eq!(answer, [expected]);
        }
        assert!(resolver.resolve("b.test".into()).await.is_err());
        assert_eq!(resolver.lookups(), 4);
    }

    #[tokio::test]
    async fn names_that_never_answer_delay_no_other() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static LET_GO: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
        const HANGING: usize = 600;
        let resolver = SystemResolver::asking(|host| {
            if host.starts_with("hang") {
                ASKED.fetch_add(1, SeqCst);
                let held = LET_GO.0.lock().expect("nobody panics");
                drop(LET_GO.1.wait_while(held, |let_go| !*let_go));
            }
            Ok([IpAddr::from([192, 0, 2, 1])].into())
        });
        let hanging: Vec<_> = (0..HANGING)
            .map(|name| tokio::spawn(resolver.resolve(format!("hang{name}.test"))))
            .collect();
        let all_asked = async {
            while ASKED.load(SeqCst) < HANGING {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), all_asked).await;
        in_time.expect("each of them is asked");
        let answer = resolver.resolve("fine.test".into()).await.expect("an answer");
        assert_eq!(answer, [IpAddr::from([192, 0, 2, 1])]);
        assert!(hanging.iter().all(|lookup| !lookup.is_finished()));
        *LET_GO.0.lock().expect("nobody panics") = true;
        LET_GO.1.notify_all();
        for lookup in hanging {
            lookup.await.expect("a task").expect("an answer");
        }
    }

    #[tokio::test]
    async fn without_more_threads_a_lookup_waits_for_one() {
        let mut resolver = SystemResolver::asking(|_| Ok([IpAddr::from([192, 0, 2, 1])].into()));
        // No system has room for that.
        resolver.stack_bytes = 1 << 50;
        let all = Arc::clone(&resolver.of_runtime).acquire_many_owned(RUNTIME_THREADS as u32);
        let busy = all.await.expect("permits");
        let mut waits = tokio::spawn(resolver.resolve("fine.test".into()));
        let begun = async {
            while resolver.permits.available_permits() == LOOKUPS_AT_ONCE {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = begun => {}
            answer = &mut waits => panic!("{answer:?} without a thread"),
        }
        drop(busy);
        let answer = waits.await.expect("a task").expect("an answer");
        assert_eq!(answer, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[tokio::test]
    async fn a_lookup_that_all_have_given_up_before_its_turn_is_not_made() {
        let resolver = SystemResolver::default();
        let all = Arc::clone(&resolver.permits).acquire_many_owned(LOOKUPS_AT_ONCE as u32);
        let busy = all.await.expect("permits");
        let (waits, given_up) =
            (resolver.resolve("127.0.0.1".into()), resolver.resolve("127.0.0.2".into()));
        let mut waits = tokio::spawn(waits);
        let given_up = tokio::spawn(given_up);
        let asked = async {
            while resolver.pending.lock().expect("not poisoned").len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = asked => {}
            answer = &mut waits => panic!("{answer:?} without a permit"),
        }
        given_up.abort();
        while resolver.pending.lock().expect("not poisoned").contains_key("127.0.0.2") {
            tokio::task::yield_now().await;
        }
        drop(busy);
        let answer = waits.await.expect("a task").expect("numeric");
        assert_eq!(answer, [IpAddr::from([127, 0, 0, 1])]);
    }

    #[tokio::test]
    async fn the_system_answers_for_numbers_without_dns_and_forgets_the_question() {
        let resolver = SystemResolver::default();
        let (a, b) = tokio::join!(
            resolver.resolve("127.0.0.1".into()),
            resolver.resolve("127.0.0.1".into())
        );
        assert_eq!(a.expect("numeric"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(b.expect("numeric"), [IpAddr::from([127, 0, 0, 1])]);
        assert!(resolver.pending.lock().expect("not poisoned").is_empty());
    }
}
