//! Archives from and for the tools that people have: GNU tar and Python.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::*;

/// Runs a tool that has to be there: a missing one must not pass for a success.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaints}");
    output
}

fn python(folder: &Path, script: &str) -> String {
    String::from_utf8(run(folder, "python3", &["-c", script]).stdout).unwrap()
}

/// A folder of files to pack, with everything that is awkward to name.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let long = format!("{}/{}.txt", "d".repeat(200), "n".repeat(200));
    let files = BTreeMap::from([
        ("a.txt".to_owned(), b"hello\n".to_vec()),
        ("sub/empty".to_owned(), vec![]),
        ("sub/ünïcödé-日本.txt".to_owned(), "ü".into()),
        ("sub/noise.bin".to_owned(), noise(700_000)),
        (long, b"long".to_vec()),
    ]);
    for (path, bytes) in &files {
        let path = folder.join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    files
}

#[test]
fn what_gnu_tar_packs_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let files = tree(folder.path());
    let (mut count, mut formats) = (0, Vec::new());
    for dialect in ["gnu", "pax", "posix"] {
        for how in ["", "z", "j"] {
            let create = format!("-c{how}f");
            let dialect = format!("--format={dialect}");
            run(folder.path(), "tar", &[&dialect, &create, "x.png", "-C", "tree", "."]);
            let archive = fs::read(folder.path().join("x.png")).unwrap();
            let (shelf, summary) = unpack(&archive).unwrap();
            assert!(shelf.files == files, "{dialect} {how}");
            assert_eq!(summary.folders, 3, "the root, sub and the long one");
            formats.push(summary.format);
            count += 1;
        }
    }
    assert_eq!(count, 9);
    assert_eq!(&formats[..3], [ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarBz2]);
}

#[test]
fn old_tars_without_magic_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/old.txt"), "old").unwrap();
    run(folder.path(), "tar", &["--format=v7", "-cf", "x.tar", "d"]);
    let (shelf, summary) = unpack(&fs::read(folder.path().join("x.tar")).unwrap()).unwrap();
    assert_eq!(shelf.files["d/old.txt"], b"old");
    assert_eq!(summary.folders, 1);
}

#[test]
fn gnu_tar_and_python_unpack_what_we_pack() {
    let folder = tempfile::tempdir().unwrap();
    let files = tree(folder.path());
    let entries = || files.iter().map(|(path, bytes)| entry(path, bytes.clone())).collect();
    for format in [ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarBz2] {
        fs::write(folder.path().join("ours"), pack(format, entries()).unwrap()).unwrap();
        let out = folder.path().join(format.extension());
        fs::create_dir(&out).unwrap();
        run(&out, "tar", &["-xf", "../ours"]);
        for (path, bytes) in &files {
            assert!(fs::read(out.join(path)).unwrap() == *bytes, "{path} in {format:?}");
        }
        let names =
            python(folder.path(), "import tarfile; print(sorted(tarfile.open('ours').getnames()))");
        assert!(names.contains("ünïcödé-日本"), "{names}");
    }
    fs::write(folder.path().join("ours"), pack(ArchiveFormat::Zip, entries()).unwrap()).unwrap();
    python(
        folder.path(),
        "import zipfile; z = zipfile.ZipFile('ours'); assert z.testzip() is None; \
         z.extractall('zip'); assert z.infolist()[0].date_time == (2023, 11, 14, 22, 13, 20)",
    );
    for (path, bytes) in &files {
        assert!(fs::read(folder.path().join("zip").join(path)).unwrap() == *bytes, "{path}");
    }
}

#[test]
fn python_reads_our_zip_of_many_entries() {
    let folder = tempfile::tempdir().unwrap();
    let entries = (0..66_000).map(|number| entry(&number.to_string(), "")).collect();
    fs::write(folder.path().join("ours"), pack(ArchiveFormat::Zip, entries).unwrap()).unwrap();
    let count =
        python(folder.path(), "import zipfile; print(len(zipfile.ZipFile('ours').infolist()))");
    assert_eq!(count.trim(), "66000");
}

#[test]
fn what_python_zips_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    // Deflated and stored, forced zip64, data descriptors of both sizes (an output that cannot
    // seek), a folder, a name that needs the UTF-8 flag, and a comment.
    python(
        folder.path(),
        r#"
import zipfile, io
class Pipe(io.RawIOBase):
    def __init__(self, f): self.f = f
    def writable(self): return True
    def write(self, b): return self.f.write(b)
def fill(z):
    z.writestr('plain.txt', 'plain', zipfile.ZIP_STORED)
    z.writestr('sub/', '')
    z.writestr('sub/ü日本.txt', 'x' * 100000, zipfile.ZIP_DEFLATED)
    with z.open('big64.bin', 'w', force_zip64=True) as f: f.write(b'big')
    z.comment = b'a comment with PK\x03\x04 in it'
with zipfile.ZipFile('a.zip', 'w') as z: fill(z)
with zipfile.ZipFile(Pipe(open('b.zip', 'wb')), 'w') as z: fill(z)
"#,
    );
    for name in ["a.zip", "b.zip"] {
        let (shelf, summary) = unpack(&fs::read(folder.path().join(name)).unwrap()).unwrap();
        assert_eq!((summary.files, summary.folders), (3, 1), "{name}");
        assert_eq!(shelf.files["plain.txt"], b"plain");
        assert_eq!(shelf.files["sub/ü日本.txt"].len(), 100_000);
        assert_eq!(shelf.files["big64.bin"], b"big");
    }
}

#[test]
fn what_python_tars_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    python(
        folder.path(),
        r#"
import tarfile, io
for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    headers = {'comment': 'global'} if dialect == tarfile.PAX_FORMAT else None
    with tarfile.open(f'{dialect}.tar', 'w', format=dialect, pax_headers=headers) as t:
        for name in ('a', 'p' * 90 + '/' + 'ü' * 40, 'x\u00e9'):
            info = tarfile.TarInfo(name); info.size = 3
            t.addfile(info, io.BytesIO(b'abc'))
"#,
    );
    for dialect in 0..3 {
        let archive = fs::read(folder.path().join(format!("{dialect}.tar"))).unwrap();
        let (shelf, _) = unpack(&archive).unwrap();
        assert_eq!(shelf.files.len(), 3, "{dialect}");
        assert!(shelf.files.contains_key("xé"));
    }
}

#[test]
fn links_devices_and_sparse_files_from_gnu_tar_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path.join("symlink")).unwrap();
    fs::hard_link(path.join("file"), path.join("hardlink")).unwrap();
    run(path, "mkfifo", &["fifo"]);
    run(path, "truncate", &["-s", "1M", "sparse"]);
    let cases: [(&[&str], &str, &str); 6] = [
        (&["symlink"], "symlink", "a symbolic link"),
        (&["file", "hardlink"], "hardlink", "a hard link"),
        (&["fifo"], "fifo", "a named pipe"),
        (&["/dev/null"], "dev/null", "a character device"),
        (&["-S", "--format=gnu", "sparse"], "sparse", "a sparse file"),
        (&["-S", "--format=pax", "sparse"], "sparse", "a sparse file"),
    ];
    for (arguments, entry, found) in cases {
        run(path, "tar", &[&["-cf", "x.tar"], arguments].concat());
        let error = refusal(&fs::read(path.join("x.tar")).unwrap());
        assert_eq!(error.code(), "unsupported_entry");
        let message = error.to_string();
        assert!(message.contains(entry) && message.contains(found), "{message}");
    }
}

#[test]
fn concatenated_streams_are_one_archive() {
    let tar = pack(ArchiveFormat::Tar, vec![entry("noise", noise(300_000))]).unwrap();
    let (front, back) = tar.split_at(123_456);
    for archive in [
        [gzip(front), gzip(b""), gzip(back)].concat(),
        [bzip2(front), bzip2(b""), bzip2(back)].concat(),
    ] {
        assert!(unpack(&archive).unwrap().0.files["noise"] == noise(300_000));
    }
}
