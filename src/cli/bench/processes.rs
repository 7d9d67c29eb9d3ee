//! What processes used, read from `/proc`.

use std::fs;

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

/// The first process of the database that this process serves a connection of, if both run on this
/// machine. A number from elsewhere, or from another container, is nobody's or somebody else's here.
pub(super) fn postmaster(backend: u32) -> Option<u32> {
    let is_postgres = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        ["postgres", "postmaster"].contains(&name.trim_end()).then_some(pid)
    };
    is_postgres(stat(is_postgres(backend)?)?.parent)
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
    fn a_process_that_is_no_database_has_no_postmaster() {
        assert_eq!(postmaster(std::process::id()), None);
        assert_eq!(postmaster(u32::MAX), None);
    }
}
