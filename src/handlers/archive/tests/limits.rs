//! Limits and stops: how far a run goes before it ends.

use std::cell::Cell;

use super::*;

fn too_large(archive: &[u8], limits: &Limits) -> String {
    let error = unpack_within(archive, limits).map(|(_, summary)| summary).unwrap_err();
    assert_eq!(error.code(), "too_large", "{error}");
    error.to_string()
}

#[test]
fn each_limit_is_exact_in_each_format() {
    for format in ALL {
        let entries = vec![entry("abcd", "123"), entry("efgh", "12345")];
        let archive = pack(format, entries).unwrap();
        let fits = Limits {
            max_entries: 2,
            max_total_bytes: 8,
            max_entry_bytes: 5,
            max_path_bytes: 4,
            max_ratio: 1,
        };
        assert_eq!(unpack_within(&archive, &fits).unwrap().1.files, 2, "{format:?}");
        let message = too_large(&archive, &Limits { max_entries: 1, ..fits.clone() });
        assert_eq!(message, "the number of entries is over the limit of 1");
        let message = too_large(&archive, &Limits { max_entry_bytes: 4, ..fits.clone() });
        assert!(message.ends_with("limit of 4 at \"efgh\""), "{message}");
        let message = too_large(&archive, &Limits { max_total_bytes: 7, ..fits.clone() });
        assert!(message.contains("all entries") && message.contains('7'), "{message}");
        let long = unpack_within(&archive, &Limits { max_path_bytes: 3, ..fits });
        assert_eq!(long.map(|(_, summary)| summary).unwrap_err().code(), "unsafe_path");
    }
}

fn zeros(path: &str, size: u64) -> Entry<'static> {
    Entry {
        size,
        open: Box::new(move || Ok(Box::new(io::repeat(0).take(size)))),
        ..entry(path, "")
    }
}

#[test]
fn a_bomb_is_refused_by_its_ratio() {
    for format in [ArchiveFormat::Zip, ArchiveFormat::TarGz, ArchiveFormat::TarBz2] {
        let archive = pack(format, vec![zeros("bomb", 64 << 20)]).unwrap();
        assert!(archive.len() < 100_000);
        let message = too_large(&archive, &Limits::default());
        assert!(message.contains("ratio") && message.contains("250"), "{message}");
        let patient = Limits { max_ratio: u64::MAX, ..Limits::default() };
        assert_eq!(unpack_within(&archive, &patient).unwrap().1.bytes, 64 << 20);
    }
    let padding = gzip(&vec![0; 40 << 20]);
    assert!(["too_large", "bad_archive"].contains(&refusal(&padding).code()));
}

#[test]
fn a_zip_that_lies_about_sizes_is_stopped_by_real_bytes() {
    let archive = pack(ArchiveFormat::Zip, vec![zeros("liar", 1 << 20)]).unwrap();
    let mut liar = archive.clone();
    let central = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    for size in [22, central + 24] {
        liar[size..size + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    let mut counter = Counter::default();
    let input = Cursor::new(liar);
    let error = extract(input, &mut counter, &Limits::default(), &mut Patient::default());
    assert_eq!(error.unwrap_err().code(), "bad_archive");
    assert!(counter.bytes <= 10);
}

/// Asks for a stop once it was asked so often.
struct Impatient {
    asked: Cell<u64>,
    patience: u64,
}

impl Impatient {
    fn new(patience: u64) -> Self {
        Self { asked: Cell::new(0), patience }
    }
}

impl Control for Impatient {
    fn progress(&mut self, _: u64, _: u64) {}

    fn stop_requested(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.asked.get() > self.patience
    }
}

#[test]
fn a_stop_ends_packing_in_the_middle_of_an_entry() {
    for format in ALL {
        let mut control = Impatient::new(40);
        let entries = [zeros("endless", 1 << 50)];
        let out = Cursor::new(Vec::new());
        let error = write_archive(out, format, entries, &mut control).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "stopped", "{format:?}");
        assert_eq!(control.asked.get(), 41, "nobody reads on after a stop");
    }
}

#[test]
fn a_stop_ends_unpacking_in_the_middle_of_an_entry() {
    for format in ALL {
        let archive = pack(format, vec![zeros("large", 16 << 20)]).unwrap();
        let mut counter = Counter::default();
        let mut control = Impatient::new(60);
        let input = Cursor::new(&archive);
        let error = extract(input, &mut counter, &Limits::default(), &mut control).unwrap_err();
        assert_eq!(error.code(), "stopped", "{format:?}");
        assert_eq!(counter.files, 0);
    }
}

/// Counts how much is read without asking whether to stop.
#[derive(Default)]
struct Meter {
    unasked: Cell<usize>,
    most: Cell<usize>,
}

impl Control for &Meter {
    fn progress(&mut self, _: u64, _: u64) {}

    fn stop_requested(&self) -> bool {
        self.unasked.set(0);
        false
    }
}

struct Metered<'a> {
    input: Cursor<&'a [u8]>,
    meter: &'a Meter,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let unasked = self.meter.unasked.get() + count;
        self.meter.unasked.set(unasked);
        self.meter.most.set(unasked.max(self.meter.most.get()));
        Ok(count)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

#[test]
fn streams_of_nothing_are_left_in_time_too() {
    let start = pack(ArchiveFormat::Tar, vec![zeros("a", 4096)]).unwrap();
    let front = &start[..1024];
    for archive in [
        [gzip(front), gzip(b"").repeat(200_000)].concat(),
        [bzip2(front), bzip2(b"").repeat(200_000)].concat(),
    ] {
        let meter = Meter::default();
        let input = Metered { input: Cursor::new(&archive), meter: &meter };
        let result = extract(input, &mut Counter::default(), &Limits::default(), &mut &meter);
        assert_eq!(result.unwrap_err().code(), "bad_archive");
        let most = meter.most.get();
        assert!(most <= 256 * 1_024, "{most} bytes of {} are read unasked", archive.len());
    }
}

#[test]
fn a_sink_that_swallows_errors_hides_nothing() {
    struct Careless;
    impl Sink for Careless {
        fn file(&mut self, _: &str, content: &mut dyn Read) -> Result<(), SinkError> {
            let _ = io::copy(content, &mut io::sink());
            Ok(())
        }
    }
    struct Lazy;
    impl Sink for Lazy {
        fn file(&mut self, _: &str, _: &mut dyn Read) -> Result<(), SinkError> {
            Ok(())
        }
    }
    for format in [ArchiveFormat::Zip, ArchiveFormat::TarGz] {
        let mut archive = pack(format, vec![entry("a", noise(9000))]).unwrap();
        archive[5000] ^= 1;
        for sink in [&mut Careless as &mut dyn Sink, &mut Lazy] {
            let input = Cursor::new(&archive);
            let result = extract(input, sink, &Limits::default(), &mut Patient::default());
            assert_eq!(result.unwrap_err().code(), "bad_archive", "{format:?}");
        }
    }
}

#[test]
fn a_sinks_own_errors_are_kept_apart() {
    struct Broken(Option<SinkError>);
    impl Sink for Broken {
        fn file(&mut self, _: &str, _: &mut dyn Read) -> Result<(), SinkError> {
            Err(self.0.take().unwrap())
        }
    }
    for (answer, code, transient) in [
        (SinkError::Refused("quota".into()), "refused", false),
        (SinkError::Io(io::Error::other("down")), "io", true),
    ] {
        let archive = Cursor::new(pack(ArchiveFormat::Tar, vec![entry("a", "x")]).unwrap());
        let mut sink = Broken(Some(answer));
        let error = extract(archive, &mut sink, &Limits::default(), &mut Patient::default());
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (code, transient));
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
}

#[test]
fn a_failing_input_is_not_a_bad_archive() {
    struct Flaky(Cursor<Vec<u8>>, u64);
    impl Read for Flaky {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.position() {
                position if position < self.1 => {
                    let left = usize::try_from(self.1 - position).unwrap();
                    let window = buffer.len().min(left);
                    self.0.read(&mut buffer[..window])
                }
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }
    impl io::Seek for Flaky {
        fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }
    for format in ALL {
        let archive = pack(format, vec![entry("a", noise(100_000))]).unwrap();
        for reach in [0, 10, 50_000] {
            let flaky = Flaky(Cursor::new(archive.clone()), reach);
            let mut shelf = Shelf::default();
            let result = extract(flaky, &mut shelf, &Limits::default(), &mut Patient::default());
            let error = result.unwrap_err();
            assert!(error.is_transient(), "{format:?} at {reach}: {error}");
        }
    }
}
