//! Storing, reading and sweeping bytes, on a real folder and on a store in memory.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use object_store::memory::InMemory;
use tempfile::TempDir;

use super::*;
use crate::files::Opened;

const LARGE: usize = 12 * 1024 * 1024 + 17;

/// Both kinds of store; the folder lives as long as the guard.
fn stores() -> (TempDir, [Blobs; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let local = Blobs::local(&folder.path().join("deep/files")).unwrap();
    (folder, [local, Blobs::remote(Arc::new(InMemory::new()))])
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn pieces(content: &[u8], piece: usize) -> impl Stream<Item = std::io::Result<Bytes>> + use<> {
    let pieces: Vec<_> = content.chunks(piece).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    stream::iter(pieces)
}

async fn read(opened: Opened) -> Vec<u8> {
    let chunks: Vec<Bytes> = opened.stream.try_collect().await.unwrap();
    chunks.concat()
}

/// Every file below the folder, whatever its name.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Far enough ahead of any file a test writes.
fn far_future() -> DateTime<Utc> {
    DateTime::from_timestamp(32_000_000_000, 0).unwrap()
}

async fn keys(blobs: &Blobs, cutoff: DateTime<Utc>) -> Vec<Uuid> {
    blobs.list_older_than(cutoff).try_collect().await.unwrap()
}

#[tokio::test]
async fn what_is_stored_is_read_back() {
    let (_folder, stores) = stores();
    for blobs in stores {
        for (size, piece) in [(0, 1), (1, 1), (600, 100), (LARGE, 100_000), (LARGE, LARGE)] {
            let (key, content) = (Uuid::now_v7(), content(size));
            let staged = blobs.stage(key, pieces(&content, piece), LARGE as u64).await.unwrap();
            assert_eq!((staged.key, staged.size), (key, size as u64));
            assert_eq!(staged.sha256_hex, hex::encode(Sha256::digest(&content)));
            assert_eq!(staged.head, &content[..size.min(512)]);
            let opened = blobs.open(key, None).await.unwrap();
            assert_eq!((opened.size, opened.range.clone()), (size as u64, 0..size as u64));
            assert!(read(opened).await == content);
        }
    }
}

#[tokio::test]
async fn parts_of_content_can_be_read() {
    let (_folder, stores) = stores();
    for blobs in stores {
        let (key, content) = (Uuid::now_v7(), content(1000));
        blobs.stage(key, pieces(&content, 300), 1000).await.unwrap();
        for (asked, given) in [(0..1, 0..1), (990..1000, 990..1000), (500..5000, 500..1000)] {
            let opened = blobs.open(key, Some(asked)).await.unwrap();
            assert_eq!((opened.size, opened.range.clone()), (1000, given.clone()));
            assert_eq!(read(opened).await, content[given.start as usize..given.end as usize]);
        }
        for asked in [1000..1001, 5..5, 2000..3000] {
            let error = blobs.open(key, Some(asked)).await.err().unwrap();
            assert!(matches!(error, BlobError::Range { size: 1000, .. }), "{error:?}");
        }
        let error = blobs.open(Uuid::now_v7(), Some(0..1)).await.err().unwrap();
        assert_eq!(error.code(), "blob_not_found");
    }
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let (folder, stores) = stores();
    for blobs in &stores {
        for size in [1000, LARGE] {
            let (key, content) = (Uuid::now_v7(), content(size));
            let cap = size as u64 - 1;
            let error = blobs.stage(key, pieces(&content, 70_000), cap).await.unwrap_err();
            assert!(matches!(error, BlobError::TooLarge { cap: told } if told == cap));

            let broken = pieces(&content, 70_000)
                .chain(stream::iter([Err(std::io::Error::other("connection reset"))]));
            let error = blobs.stage(key, broken, u64::MAX).await.unwrap_err();
            assert_eq!(error.code(), "source_failed");
            assert_eq!(blobs.open(key, None).await.err().unwrap().code(), "blob_not_found");
        }
    }
    assert_eq!(files_below(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_key_is_written_once() {
    let (_folder, stores) = stores();
    for blobs in stores {
        for (first, second) in [(10, 20), (10, LARGE), (LARGE, 10), (LARGE, LARGE)] {
            let (key, before) = (Uuid::now_v7(), content(first));
            blobs.stage(key, pieces(&before, 70_000), u64::MAX).await.unwrap();
            let again = blobs.stage(key, pieces(&vec![9; second], 70_000), u64::MAX).await;
            assert_eq!(again.unwrap_err().code(), "blob_exists");
            assert!(read(blobs.open(key, None).await.unwrap()).await == before);
        }
    }
}

#[tokio::test]
async fn deleting_twice_is_fine() {
    let (_folder, stores) = stores();
    for blobs in stores {
        let key = Uuid::now_v7();
        blobs.stage(key, pieces(b"x", 1), 1).await.unwrap();
        blobs.delete(key).await.unwrap();
        blobs.delete(key).await.unwrap();
        assert_eq!(blobs.open(key, None).await.err().unwrap().code(), "blob_not_found");
    }
}

#[tokio::test]
async fn local_files_go_in_and_out() {
    let (folder, [blobs, _]) = stores();
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    let (key, content) = (Uuid::now_v7(), content(LARGE));
    std::fs::write(&source, &content).unwrap();

    let mut told = 0;
    let note = |bytes| {
        told = bytes;
        ControlFlow::Continue(())
    };
    let staged = blobs.stage_file(key, &source, note).await.unwrap();
    assert_eq!((staged.size, told), (LARGE as u64, LARGE as u64));
    let size = blobs.download_to(key, &copy, |_| ControlFlow::Continue(())).await.unwrap();
    assert!(size == LARGE as u64 && std::fs::read(&copy).unwrap() == content);

    let over = blobs.download_to(key, &copy, |_| ControlFlow::Continue(())).await;
    assert_eq!(over.unwrap_err().code(), "local_file_failed");
    assert!(std::fs::read(&copy).unwrap() == content, "an existing file is left alone");
}

#[tokio::test]
async fn copies_stop_when_asked() {
    let (folder, [blobs, _]) = stores();
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    std::fs::write(&source, content(LARGE)).unwrap();
    let stop = |bytes| {
        if bytes > 6_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };

    let error = blobs.stage_file(Uuid::now_v7(), &source, stop).await.unwrap_err();
    assert_eq!(error.code(), "stopped");
    let key = Uuid::now_v7();
    blobs.stage_file(key, &source, |_| ControlFlow::Continue(())).await.unwrap();
    let error = blobs.download_to(key, &copy, stop).await.unwrap_err();
    assert_eq!(error.code(), "stopped");
    assert!(!copy.exists());
    assert_eq!(files_below(folder.path()).len(), 2, "the source and the one stored");
}

#[cfg(unix)]
#[tokio::test]
async fn only_regular_files_are_staged() {
    let (folder, [blobs, _]) = stores();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    for path in [link.as_path(), folder.path(), Path::new("/nowhere")] {
        let staged = blobs.stage_file(Uuid::now_v7(), path, |_| ControlFlow::Continue(())).await;
        assert_eq!(staged.unwrap_err().code(), "local_file_failed");
    }
}

#[tokio::test]
async fn the_sweep_sees_old_keys_and_nothing_else() {
    let (folder, [blobs, _]) = stores();
    let mut stored = [Uuid::now_v7(), Uuid::new_v4()];
    for key in stored {
        blobs.stage(key, pieces(b"x", 1), 1).await.unwrap();
    }
    stored.sort();
    let root = folder.path().join("deep/files");
    std::fs::write(root.join("README"), "not ours").unwrap();
    std::fs::write(root.join(Uuid::now_v7().to_string()), "in no place of ours").unwrap();

    let mut found = keys(&blobs, far_future()).await;
    found.sort();
    assert_eq!(found, stored);
    assert!(keys(&blobs, DateTime::UNIX_EPOCH).await.is_empty());
}

#[tokio::test]
async fn leftovers_of_a_killed_process_are_removed_when_old() {
    let (folder, [blobs, _]) = stores();
    let key = Uuid::from_u128(0xabcd);
    blobs.stage(key, pieces(b"x", 1), 1).await.unwrap();
    let shelf = folder.path().join("deep/files/ab/cd");
    assert!(shelf.join(key.to_string()).exists(), "the layout of keys is fixed");
    std::fs::write(shelf.join(format!("{}#1", Uuid::now_v7())), "half").unwrap();

    assert_eq!(keys(&blobs, far_future()).await, [key], "listings do not show leftovers");
    assert_eq!(blobs.remove_unfinished(DateTime::UNIX_EPOCH).await.unwrap(), 0);
    assert_eq!(blobs.remove_unfinished(far_future() - TimeDelta::days(1)).await.unwrap(), 1);
    assert_eq!(files_below(folder.path()), [shelf.join(key.to_string())]);
}

#[test]
fn part_sizes_follow_the_cap() {
    assert_eq!(part_bytes(0), 5 * 1024 * 1024);
    assert_eq!(part_bytes(200_000_000_000), 20_000_000);
    assert_eq!(part_bytes(u64::MAX), 64 * 1024 * 1024);
}

#[test]
fn a_full_disk_is_told_apart() {
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let nested = object_store::Error::Generic { store: "test", source: Box::new(full()) };
    assert_eq!(BlobError::Storage(nested).code(), "storage_full");
    assert_eq!(BlobError::File { path: "x".into(), source: full() }.code(), "storage_full");
    let other = std::io::Error::other("x");
    assert_eq!(BlobError::Folder { path: "x".into(), source: other }.code(), "storage_failed");
}
