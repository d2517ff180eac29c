//! Debian packages of any architecture and release, taken through apt with lists and state of its own, so
//! that the machine's own package state is neither used nor changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{cache, host, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One release of Debian for one architecture.
pub struct Release {
    folder: PathBuf,
    options: Vec<String>,
}

impl Release {
    /// `suite` (`trixie`, `sid`, …) for Debian architecture `arch`; fetches the package lists if there are none.
    ///
    /// # Errors
    /// No mirror is known, or apt fails.
    pub fn open(suite: &str, arch: &str) -> Result<Self> {
        host::ensure(host::BOOT)?;
        host::ensure_file(KEYRING, "debian-archive-keyring")?;
        let folder = cache::folder()?.join("apt").join(format!("{suite}-{arch}"));
        for sub in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(sub))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("list"), format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?))?;
        let d = folder.display();
        let options = vec![
            format!("-oAPT::Architecture={arch}"),
            format!("-oAPT::Architectures={arch}"),
            format!("-oDir::State={d}"),
            format!("-oDir::State::status={d}/status"),
            format!("-oDir::State::lists={d}/lists"),
            format!("-oDir::Cache={d}"),
            format!("-oDir::Cache::archives={d}/archives"),
            format!("-oDir::Etc::sourcelist={d}/list"),
            format!("-oDir::Etc::sourceparts={d}/none"),
            format!("-oDir::Etc::preferencesparts={d}/none"),
            "-oAPT::Sandbox::User=root".into(),
            "-oDebug::NoLocking=true".into(),
            "-oAcquire::Languages=none".into(),
        ];
        let release = Self { folder, options };
        run::say(&format!("reading Debian {suite}'s package lists ({arch})"));
        release.apt(&["update", "-q"])?;
        Ok(release)
    }

    fn apt(&self, args: &[&str]) -> Result<String> {
        run::quiet(host::apt_get().args(&self.options).args(args).current_dir(self.folder.join("archives")))
    }

    /// `packages` and everything that they depend on, as file names, dependencies first.
    fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut args = vec!["install", "--no-install-recommends", "--print-uris", "-qq", "-y"];
        args.extend(packages);
        let text = self.apt(&args)?;
        Ok(text.lines().filter_map(|l| l.split_whitespace().nth(1)).map(str::to_owned).collect())
    }

    /// Unpacks into `tree` those packages of the closure of `packages` whose name `wanted` accepts.
    ///
    /// # Errors
    /// apt or dpkg fails, or nothing was accepted.
    pub fn unpack_some(&self, packages: &[&str], tree: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let closure = self.closure(packages)?;
        let names: Vec<&str> =
            closure.iter().filter_map(|file| file.split('_').next()).filter(|n| wanted(n)).collect();
        if names.is_empty() {
            bail!("Debian has no package that fits {}", packages.join(" "));
        }
        run::say(&format!("downloading {}", names.join(" ")));
        let mut args = vec!["download", "-q"];
        args.extend(&names);
        self.apt(&args)?;
        self.unpack(tree)
    }

    /// Unpacks `packages` and all that they depend on into `tree`. No maintainer script is run: what needs
    /// one (alternatives, users) is up to the caller.
    ///
    /// # Errors
    /// apt or dpkg fails.
    pub fn unpack_all(&self, packages: &[&str], tree: &Path) -> Result<()> {
        run::say(&format!("downloading {} and what they need", packages.join(" ")));
        let mut args = vec!["install", "--no-install-recommends", "--download-only", "-q", "-y"];
        args.extend(packages);
        self.apt(&args)?;
        self.unpack(tree)
    }

    /// Unpacks every downloaded package and throws the archives away.
    fn unpack(&self, tree: &Path) -> Result<()> {
        fs::create_dir_all(tree)?;
        let mut archives: Vec<PathBuf> = fs::read_dir(self.folder.join("archives"))?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "deb"))
            .collect();
        // The package with the links /bin -> usr/bin comes first: others go through them.
        archives.sort_by_key(|p| !p.to_string_lossy().contains("/base-files_"));
        for deb in &archives {
            run::quiet(&mut run::command("dpkg-deb", [Path::new("-x"), deb, tree]))?;
            fs::remove_file(deb)?;
        }
        Ok(())
    }
}

/// The Debian mirror: `$ARMLET_MIRROR`, or the one that the machine itself takes its packages from.
fn mirror() -> Result<String> {
    if let Ok(m) = std::env::var("ARMLET_MIRROR") {
        return Ok(m);
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|e| e.ok().map(|e| e.path())));
    }
    files.sort();
    let mirrors = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "list" || e == "sources"))
        .filter_map(|f| fs::read_to_string(f).ok())
        .flat_map(|text| text.lines().filter_map(mirror_in).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    let chosen = mirrors.iter().find(|m| m.trim_end_matches('/').ends_with("/debian"));
    chosen.cloned().context("no Debian mirror in /etc/apt: set ARMLET_MIRROR to the address of one")
}

/// The address in one line of a sources file, old style or new.
fn mirror_in(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("URIs:") {
        return rest.split_whitespace().next().map(str::to_owned);
    }
    line.strip_prefix("deb ")?.split_whitespace().find(|w| w.contains("://")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn mirrors_are_found_in_both_kinds_of_sources_file() {
        assert_eq!(mirror_in("URIs: http://m.example/debian").as_deref(), Some("http://m.example/debian"));
        let old = "deb [signed-by=/k.gpg arch=amd64] https://m.example/debian bookworm main";
        assert_eq!(mirror_in(old).as_deref(), Some("https://m.example/debian"));
        assert_eq!(mirror_in("# deb http://m.example/debian bookworm main"), None);
        assert_eq!(mirror_in("deb-src http://m.example/debian bookworm main"), None);
        assert_eq!(mirror_in("Suites: bookworm"), None);
    }
}
