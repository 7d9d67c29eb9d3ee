//! What we pack we unpack again, in every format.

use std::io::{Seek, SeekFrom, Write};

use super::*;

#[test]
fn nested_unicode_empty_and_large_files_come_back() {
    let deep = format!("{}/end.txt", "ordner-日本".repeat(30));
    let long = format!("{}.txt", "x".repeat(400));
    let wanted: Vec<(&str, Vec<u8>)> = vec![
        ("a.txt", b"hello".to_vec()),
        ("nested/deeper/b.txt", b"b".to_vec()),
        ("nested/leer.bin", vec![]),
        ("Straße/日本語/😀.txt", "ü".into()),
        ("exactly-one-block", vec![7; 512]),
        ("big/noise.bin", noise(3_000_000)),
        (&deep, b"deep".to_vec()),
        (&long, b"long".to_vec()),
    ];
    for format in ALL {
        let entries = wanted.iter().map(|(path, bytes)| entry(path, bytes.clone())).collect();
        let archive = pack(format, entries).unwrap();
        assert_eq!(detect(&mut Cursor::new(&archive)).unwrap(), format);
        let (shelf, summary) = unpack(&archive).unwrap();
        assert_eq!(summary.format, format);
        assert_eq!((summary.files, summary.folders), (wanted.len() as u64, 0));
        assert_eq!(summary.bytes, wanted.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        assert_eq!(shelf.files.len(), wanted.len());
        for (path, bytes) in &wanted {
            assert!(shelf.files[*path] == *bytes, "{path} in {format:?}");
        }
    }
}

#[test]
fn no_entries_are_an_archive_too() {
    for format in ALL {
        let archive = pack(format, vec![]).unwrap();
        assert_eq!(detect(&mut Cursor::new(&archive)).unwrap(), format);
        assert_eq!(unpack(&archive).unwrap().1.files, 0, "{format:?}");
    }
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    for format in ALL {
        let once = || pack(format, vec![entry("a", "x"), entry("b/c", noise(100_000))]).unwrap();
        assert!(once() == once(), "{format:?}");
    }
}

#[test]
fn paths_are_checked_and_tidied_before_anything_is_opened() {
    for format in ALL {
        let unopened =
            || Entry { open: Box::new(|| panic!("must not be opened")), ..entry("a", "") };
        let bad = pack(format, vec![unopened(), entry("../b", "")]).unwrap_err();
        assert_eq!(bad.code(), "unsafe_path");
        let twice = pack(format, vec![unopened(), entry("./a", "")]).unwrap_err();
        assert_eq!(twice.code(), "duplicate_path");
        let (shelf, _) = unpack(&pack(format, vec![entry("./x//y", "1")]).unwrap()).unwrap();
        assert_eq!(shelf.files.into_keys().collect::<Vec<_>>(), ["x/y"]);
    }
}

#[test]
fn a_source_that_breaks_its_promise_fails_the_archive() {
    for format in ALL {
        for (size, found) in [(4, "more"), (6, "less")] {
            let liar = Entry { size, ..entry("liar.txt", "12345") };
            let error = pack(format, vec![entry("good", "x"), liar]).unwrap_err();
            assert_eq!(error.code(), "wrong_size");
            assert!(!error.is_transient());
            assert!(error.to_string().contains("liar.txt") && error.to_string().contains(found));
        }
    }
}

#[test]
fn a_source_that_fails_is_transient_and_named() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone"))
        }
    }
    for format in ALL {
        let failing = Entry { size: 9, open: Box::new(|| Ok(Box::new(Failing))), ..entry("f", "") };
        let closed = Entry { open: Box::new(|| Err(io::Error::other("no"))), ..entry("f", "") };
        for bad in [failing, closed] {
            let error = pack(format, vec![entry("good", "x"), bad]).unwrap_err();
            assert!(error.is_transient() && error.code() == "io", "{error}");
            assert!(error.to_string().contains("\"f\""));
        }
    }
}

#[test]
fn a_full_disk_is_not_transient() {
    struct Full(Cursor<Vec<u8>>);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.position() {
                0..200_000 => self.0.write(bytes),
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Seek for Full {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }
    for format in ALL {
        let entries = [entry("noise", noise(3_000_000))];
        let out = Full(Cursor::new(Vec::new()));
        let error = write_archive(out, format, entries, &mut Patient::default());
        let error = error.map(|_| ()).unwrap_err();
        assert!(matches!(error, ArchiveError::Output(_)), "{error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn progress_grows_to_the_end_in_both_directions() {
    let check = |reports: &[(u64, u64)], total: u64| {
        assert!(reports.len() > 10, "{}", reports.len());
        assert!(reports.is_sorted());
        assert!(reports.iter().all(|report| report.1 == total && report.0 <= total));
        assert_eq!(reports.last(), Some(&(total, total)));
    };
    for format in ALL {
        let mut packing = Patient::default();
        let entries = [entry("noise", noise(2_000_000)), entry("more", noise(1_000_000))];
        let out = Cursor::new(Vec::new());
        let archive = write_archive(out, format, entries, &mut packing).unwrap().into_inner();
        check(&packing.reports, 3_000_000);

        let mut unpacking = Patient::default();
        let input = Cursor::new(&archive);
        extract(input, &mut Counter::default(), &Limits::default(), &mut unpacking).unwrap();
        let total = archive.len() as u64;
        let start = unpacking.reports.iter().rposition(|report| report.0 == 0).unwrap();
        check(&unpacking.reports[start..], total);
    }
}

#[test]
fn seventy_thousand_entries_need_zip64_and_get_it() {
    const MANY: usize = 70_000;
    let entries = (0..MANY).map(|number| entry(&format!("{}/{number}", number % 100), "x"));
    let out = Cursor::new(Vec::new());
    let archive = write_archive(out, ArchiveFormat::Zip, entries, &mut Patient::default()).unwrap();
    let mut counter = Counter::default();
    let summary = extract(archive, &mut counter, &Limits::default(), &mut Patient::default());
    assert_eq!(summary.unwrap().files, MANY as u64);
    assert_eq!((counter.files, counter.bytes), (MANY as u64, MANY as u64));
}

#[test]
fn an_entry_beyond_four_gibibytes_needs_zip64_and_gets_it() {
    const SIZE: u64 = (4 << 30) + 12_345;
    let huge = Entry {
        size: SIZE,
        open: Box::new(|| Ok(Box::new(io::repeat(0).take(SIZE)))),
        ..entry("huge.bin", "")
    };
    let out = tempfile::tempfile().unwrap();
    let entries = [huge, entry("after.txt", "after")];
    let mut file =
        write_archive(out, ArchiveFormat::Zip, entries, &mut Patient::default()).unwrap();
    assert!(file.seek(SeekFrom::End(0)).unwrap() < 10_000_000);
    let mut counter = Counter::default();
    let limits = Limits { max_ratio: 2000, ..Limits::default() };
    let summary = extract(file, &mut counter, &limits, &mut Patient::default()).unwrap();
    assert_eq!((summary.files, summary.bytes), (2, SIZE + 5));
    assert_eq!(counter.bytes, SIZE + 5);
}
