//! What processes used, read from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::config;

/// Linux counts CPU in these, whatever the machine (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU of a process in milliseconds, that of ended children included.
pub(super) fn cpu_millis(pid: u32) -> Option<f64> {
    stat(pid).map(|stat| stat.own + stat.ended_children)
}

/// CPU of a process and of all its children, living and ended: it only ever grows, because a child
/// that ends moves from one sum to the other.
pub(super) fn cpu_millis_of_family(pid: u32) -> Option<f64> {
    let children = all().filter_map(stat).filter(|stat| stat.parent == pid);
    Some(cpu_millis(pid)? + children.map(|stat| stat.own + stat.ended_children).sum::<f64>())
}

/// Memory that a process has, in MiB.
pub(super) fn memory_mib(pid: u32) -> Option<f64> {
    status_mib(pid, "VmRSS:")
}

/// Most memory that a process ever had at once, in MiB.
pub(super) fn peak_memory_mib(pid: u32) -> Option<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1_024.0)
}

/// The process at the other end of a Postgres URL, if it runs on this machine and we may see it.
pub(super) fn postmaster(url: &str) -> Option<u32> {
    let url = url::Url::parse(url).ok()?;
    let parameter =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    let variable = |name: &str| {
        let found = config::libpq_environment().find(|(known, _)| known == name)?;
        found.1.into_string().ok()
    };
    // In the order in which the client library looks.
    let port = parameter("port").map(|port| port.into_owned());
    let port = port.or_else(|| url.port().map(|port| port.to_string()));
    let port = port.or_else(|| variable("PGPORT"));
    let port = port.map_or(Some(5_432), |port| port.parse().ok())?;
    let host = parameter("host").map(|host| host.into_owned());
    let host = host.or_else(|| url.host_str().map(str::to_owned));
    let host = host.or_else(|| variable("PGHOST")).unwrap_or_default();
    let local = host.is_empty() || host.starts_with('/');
    let loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let sockets = match (local, loopback) {
        (true, _) => unix_listeners(&format!("/.s.PGSQL.{port}")),
        (_, true) => tcp_listeners(port),
        _ => return None,
    };
    // Its children inherit the socket; the one whose parent does not hold it is the server.
    let holders: Vec<u32> = all().filter(|pid| holds(*pid, &sockets)).collect();
    holders.iter().copied().find(|pid| stat(*pid).is_some_and(|s| !holders.contains(&s.parent)))
}

fn tcp_listeners(port: u16) -> HashSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let suffix = format!(":{port:04X}");
    let mut inodes = HashSet::new();
    for table in tables.iter().flatten() {
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, address, _, "0A", ..] = fields.as_slice()
                && address.ends_with(&suffix)
                && let Some(inode) = fields.get(9)
            {
                inodes.insert((*inode).to_owned());
            }
        }
    }
    inodes
}

fn unix_listeners(suffix: &str) -> HashSet<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let lines = table.lines().filter(|line| line.ends_with(suffix));
    lines.filter_map(|line| line.split_whitespace().nth(6).map(str::to_owned)).collect()
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(
        |target: std::path::PathBuf| {
            let inode = Path::to_str(&target).and_then(|text| text.strip_prefix("socket:["));
            inode.is_some_and(|inode| sockets.contains(inode.trim_end_matches(']')))
        },
    )
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (name, which may hold spaces and brackets) STATE PARENT …`
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, after_name) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let millis =
        |first: usize| Some((ticks(first)? + ticks(first + 1)?) * 1_000.0 / TICKS_PER_SECOND);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: millis(11)?,
        ended_children: millis(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_strange_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 0 0 0 0 0 12 3 4 1 20 0 1 0 100 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 150.0, 50.0));
    }

    #[test]
    fn memory_is_never_more_than_its_peak() {
        let pid = std::process::id();
        let (now, peak) = (memory_mib(pid).unwrap(), peak_memory_mib(pid).unwrap());
        assert!(now > 0.0 && now <= peak, "{now} of {peak} MiB");
    }

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("postgres://me@127.0.0.1:{port}/x");
        assert_eq!(postmaster(&url), Some(std::process::id()));
        assert_eq!(postmaster("postgres://me@192.0.2.1/x"), None);
    }
}
