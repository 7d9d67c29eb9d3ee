//! What one commit costs this disk: the floor under every latency.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// How often it is tried. A quarter of the tries took less than what counts: where somebody else
/// uses the cores, half of them end with a tick of the kernel's clock and not with the disk.
const TRIES: usize = 101;

/// Milliseconds to append 4 KiB to a file in this folder and wait until the disk has them: the lower
/// quartile of 101 tries.
pub(super) fn fsync_millis(folder: &Path) -> std::io::Result<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0x5a; 4_096];
    let mut times = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(TRIES / 4).copied().unwrap_or_default().as_secs_f64() * 1_000.0)
}
