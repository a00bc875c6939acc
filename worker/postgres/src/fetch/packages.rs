//! Postgres out of the distribution's packages, unpacked but not installed, which needs no root.
//!
//! apt works in a folder of its own (lists, cache), reads the machine's sources and keys, and checks the signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{finish, run, usable_in, work_dir, working};
use crate::error::{Error, io_at};
use crate::find::{Binaries, OLDEST_MAJOR};

/// Unpacked packages in `place`, if these are some.
pub(super) fn binaries(place: &Path) -> Option<Binaries> {
    let versions = fs::read_dir(place.join("usr/lib/postgresql")).ok()?.flatten();
    let libraries = libraries(place);
    versions.filter_map(|version| usable_in(&version.path(), &libraries)).max_by_key(|found| found.major)
}

/// The library folders of the machine's architecture, such as `usr/lib/x86_64-linux-gnu`.
fn libraries(place: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(place.join("usr/lib")).into_iter().flatten().flatten();
    folders.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("-linux-gnu")).collect()
}

/// Downloads and unpacks `postgresql-<major>` and the libraries it needs that are not here.
pub(super) fn fetch(folder: &Path, wanted: Option<u32>, say: &dyn Fn(&str)) -> Result<Binaries, Error> {
    let part = work_dir(folder, "packages")?;
    let fetched = fetch_into(&part, wanted, say).and_then(|(package, root)| {
        let place = folder.join(package);
        finish(&root, &place)?;
        working(binaries(&place), "apt-get")
    });
    // Lists and archives are not needed any more; what cannot be removed now is removed by the next fetch.
    let _ = fs::remove_dir_all(&part);
    fetched
}

fn fetch_into(part: &Path, wanted: Option<u32>, say: &dyn Fn(&str)) -> Result<(String, PathBuf), Error> {
    for dir in ["state/lists/partial", "cache/archives/partial", "root"] {
        super::open_dir(&part.join(dir))?;
    }
    say("no Postgres on this machine: asking apt for one (unpacked here, not installed)");
    run(apt("apt-get", part).arg("update"), "apt-get update")?;
    let listed = run(
        apt("apt-cache", part).args(["search", "--names-only", "^postgresql-[0-9]+$"]),
        "apt-cache search postgresql",
    )?;
    let major = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.strip_prefix("postgresql-")?.parse::<u32>().ok())
        .filter(|major| *major >= OLDEST_MAJOR && wanted.is_none_or(|wanted| wanted == *major))
        .max();
    let Some(major) = major else {
        let version = wanted.map_or(format!("{OLDEST_MAJOR} or newer"), |major| major.to_string());
        return Err(Error::Tool { tool: "apt-get".into(), output: format!("it offers no Postgres {version}") });
    };
    let package = format!("postgresql-{major}");
    say(&format!("fetching {package} with apt-get"));
    // Reinstall: also where the package database has it, its files may have been removed.
    run(
        apt("apt-get", part)
            .args(["install", "--download-only", "--no-install-recommends", "--reinstall", "--yes", "--quiet"])
            .args([&package, "libpq5"]),
        "apt-get install --download-only",
    )?;
    let archives = part.join("cache/archives");
    let root = part.join("root");
    for entry in fs::read_dir(&archives).map_err(io_at("read", &archives))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The C library belongs to the machine's dynamic linker; another one beside it breaks every program.
        if !name.ends_with(".deb") || name.starts_with("libc6") {
            continue;
        }
        run(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&root), "dpkg-deb")?;
    }
    Ok((package, root))
}

/// A tool of apt, with its state here and everything else as the machine has it.
fn apt(tool: &str, part: &Path) -> Command {
    let mut command = Command::new(tool);
    for (name, value) in [
        ("Dir::State", part.join("state").display().to_string()),
        ("Dir::State::status", "/var/lib/dpkg/status".into()),
        ("Dir::Cache", part.join("cache").display().to_string()),
        ("Debug::NoLocking", "1".into()),
        ("APT::Sandbox::User", "".into()),
        ("APT::Get::List-Cleanup", "0".into()),
        ("Acquire::Retries", "1".into()),
        ("Acquire::http::Timeout", "20".into()),
        ("Acquire::https::Timeout", "20".into()),
    ] {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command
}
