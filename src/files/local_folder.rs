//! What a local folder needs beyond `object_store`: folders that survive a power cut, and the
//! removal of what a killed process left half written.
//!
//! `object_store` syncs the file and the folder it lies in. It syncs folders above only when it
//! made them itself, so one made by a process that died before its sync would stay unsynced. Here
//! every folder is synced once per process before its first file.
//!
//! Must not know: what is in the files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

/// The folder that the blobs of one server lie in.
#[derive(Debug)]
pub struct LocalFolder {
    root: PathBuf,
    /// Folders below the root known to be on disk. At most 65,536 short names, see the key layout.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalFolder {
    /// Creates the folder when it is not there, and everything above it.
    pub fn create(root: &Path) -> io::Result<LocalFolder> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        // What lies above may not be ours to open, and then it was there before us.
        root.ancestors().skip(1).for_each(|above| drop(sync(above)));
        Ok(LocalFolder { root, durable: Mutex::default() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether [`LocalFolder::prepare`] has been here; does not block.
    pub fn is_prepared(&self, folder: &Path) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Makes sure that `folder`, relative to the root, exists for good. Blocks.
    pub fn prepare(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(self.root.join(folder))?;
        for above in folder.ancestors() {
            sync(&self.root.join(above))?;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(folder.to_owned());
        Ok(())
    }

    /// Removes uploads that were never finished and last written before `cutoff`. Listings do not
    /// show these (`<key>#<number>`), so no other sweep finds them. Blocks.
    pub fn remove_unfinished(&self, cutoff: DateTime<Utc>) -> io::Result<u64> {
        let mut removed = 0;
        for first in entries(&self.root)? {
            for second in entries(&first)? {
                for file in entries(&second)? {
                    if is_unfinished(&file) && written_before(&file, cutoff) {
                        removed += u64::from(fs::remove_file(&file).is_ok());
                    }
                }
            }
        }
        Ok(removed)
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What is in a folder; nothing, when it is a file or has gone meanwhile.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) => match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        },
    }
}

fn is_unfinished(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok())
    })
}

fn written_before(file: &Path, cutoff: DateTime<Utc>) -> bool {
    let written = fs::symlink_metadata(file).and_then(|data| data.modified());
    written.is_ok_and(|written| DateTime::<Utc>::from(written) < cutoff)
}
