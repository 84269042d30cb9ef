//! Tools that are not part of the Rust distribution, at pinned versions.

use std::path::Path;
use std::{env, ffi, fs};

use anyhow::{Context, bail};

use crate::shell::{make_anew, output, program, step, tools};
use crate::{machines, wheels};

/// The last Debian that has a Consul. Its packages change no more, so that their
/// checksums can be pinned.
const CONSUL_SUITE: &str = "bullseye";
const CONSUL: &str = "1.8.7+dfsg1-2+b3";
const CONSUL_SHA256: [(&str, &str); 2] = [
    (
        "amd64",
        "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9",
    ),
    (
        "arm64",
        "7318cfa77a7ba6f71dd096e44353279de246ffc6561216ace42353685dcf8255",
    ),
];

/// Everything that the tests start and that is not built here.
pub(crate) fn all() -> anyhow::Result<()> {
    wheels::nats_server()?;
    wheels::prometheus_client()?;
    slapd()?;
    systemd()?;
    consul()?;
    machines::base()?;
    faketime()?;
    chromium()
}

/// Unpacks Debian's slapd and the tools that go with it below
/// `target/tools/slapd`, for the tests that need a real LDAP server. Installs
/// nothing on the machine; is content with a slapd that is installed already.
pub(crate) fn slapd() -> anyhow::Result<()> {
    let advice = "install the packages slapd and ldap-utils (OpenLDAP 2.5) by hand, \
                  and switch the service off: the tests start their own";
    unpack_debian("slapd", &["slapd", "ldap-utils"], slapd_runs, advice)
}

/// The same with Debian's Chromium, its driver and what makes it trust the
/// tests' authority, below `target/tools/chromium`, for the tests of passkeys.
pub(crate) fn chromium() -> anyhow::Result<()> {
    let advice = "install the packages chromium, chromium-driver and libnss3-tools by hand";
    let packages = [
        "chromium",
        "chromium-driver",
        "libnss3-tools",
        "fonts-dejavu-core",
    ];
    unpack_debian("chromium", &packages, chromium_runs, advice)
}

/// The same with Debian's systemd, below `target/tools/systemd`, for the test of
/// the units: only `systemd-analyze` is ever run.
pub(crate) fn systemd() -> anyhow::Result<()> {
    let packages = ["systemd", "libsystemd-shared"];
    let advice = "install the package systemd by hand";
    unpack_debian("systemd", &packages, systemd_runs, advice)
}

/// The same with a library that has a program see another time, below
/// `target/tools/faketime`, for the tests of wrong clocks.
pub(crate) fn faketime() -> anyhow::Result<()> {
    let advice = "install the package libfaketime by hand";
    unpack_debian("faketime", &["libfaketime"], faketime_runs, advice)
}

/// The same with the Consul of an older Debian, below `target/tools/consul`. It
/// comes by lists of packages of its own, so that this machine's stay what they
/// are.
pub(crate) fn consul() -> anyhow::Result<()> {
    let unpacked = tools().join("consul");
    if consul_runs(&unpacked)? {
        return Ok(());
    }
    let advice = format!(
        "put a consul 1.8.7 at {}/usr/bin/consul",
        unpacked.display()
    );
    download_consul(&tools().join("download"), &unpacked).context(advice.clone())?;
    must_run(&unpacked, consul_runs, &advice)
}

fn download_consul(download: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let machine = output(program("dpkg")?.arg("--print-architecture"))?;
    let machine = machine.context("Debian's dpkg is needed to unpack consul")?;
    let pinned = CONSUL_SHA256
        .iter()
        .find(|(name, _)| *name == machine.trim());
    let (machine, sha256) = pinned.context("there is no pinned consul for this machine")?;
    let lists = download.join("lists");
    make_anew(download, "lists/partial")?;
    let sources = download.join("sources.list");
    // Trusted, because what comes of it is compared with a checksum of ours.
    let mirror = debian_mirror()?;
    let source = format!("deb [arch={machine} trusted=yes] {mirror} {CONSUL_SUITE} main\n");
    fs::write(&sources, source).context("writing a list of sources")?;
    let set = |name: &str, value: &Path| {
        let mut option = ffi::OsString::from(format!("{name}="));
        option.push(value);
        option
    };
    let apt = || -> anyhow::Result<std::process::Command> {
        let mut apt = program("apt-get")?;
        apt.current_dir(download)
            .args(["--quiet", "-o", "Dir::Etc::sourceparts=/dev/null"])
            .args([
                "-o",
                "Dir::Cache::pkgcache=",
                "-o",
                "Dir::Cache::srcpkgcache=",
            ])
            .args([
                "-o",
                "APT::Sandbox::User=",
                "-o",
                "Debug::NoLocking=1",
                "-o",
            ])
            .arg(set("Dir::Etc::sourcelist", &sources))
            .arg("-o")
            .arg(set("Dir::State::lists", &lists));
        Ok(apt)
    };
    step(
        &format!("the list of packages of {CONSUL_SUITE}"),
        apt()?.arg("update"),
    )?;
    let package = format!("consul={CONSUL}");
    step(
        &format!("download {package}"),
        apt()?.args(["download", &package]),
    )?;
    let file = format!("consul_{CONSUL}_{machine}.deb");
    let sums = download.join("sums");
    fs::write(&sums, format!("{sha256}  {file}\n")).context("writing the checksum")?;
    let mut check = program("sha256sum")?;
    check
        .current_dir(download)
        .args(["--check", "--strict"])
        .arg(&sums);
    step(&format!("compare {file} with its checksum"), &mut check)?;
    unpack_package(&download.join(&file), unpacked)?;
    fs::remove_dir_all(download).context("removing the download")
}

/// Where this machine has Debian's packages from.
pub(crate) fn debian_mirror() -> anyhow::Result<String> {
    let mut targets = program("apt-get")?;
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]);
    let listed = output(&mut targets)?.context("apt-get does not name its sources")?;
    let mirror = listed
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    let mirror = mirror.context("no source of Debian's packages is configured")?;
    Ok(mirror.to_owned())
}

/// Has what these packages bring below `target/tools/<name>`, unless it runs from
/// there or is installed on this machine.
pub(crate) fn unpack_debian(
    name: &str,
    packages: &[&str],
    runs: fn(&Path) -> anyhow::Result<bool>,
    advice: &'static str,
) -> anyhow::Result<()> {
    let unpacked = tools().join(name);
    if runs(&unpacked)? || runs(Path::new("/"))? {
        return Ok(());
    }
    unpack_packages(packages, &unpacked).context(advice)?;
    must_run(&unpacked, runs, advice)
}

fn must_run(
    unpacked: &Path,
    runs: fn(&Path) -> anyhow::Result<bool>,
    advice: &str,
) -> anyhow::Result<()> {
    match runs(unpacked)? {
        true => Ok(()),
        false => bail!("{} does not start: {advice}", unpacked.display()),
    }
}

fn unpack_package(package: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let mut unpack = program("dpkg")?;
    unpack.arg("--extract").arg(package).arg(unpacked);
    step(&format!("unpack {}", package.display()), &mut unpack)
}

/// Unpacks Debian's packages, and those that they need and this machine lacks.
fn unpack_packages(packages: &[&str], unpacked: &Path) -> anyhow::Result<()> {
    if output(program("apt-get")?.arg("--version"))?.is_none() {
        bail!(
            "Debian's apt-get is needed to download {}",
            packages.join(", ")
        );
    }
    let download = tools().join("download");
    if download_packages(packages, &download).is_err() {
        eprintln!(
            "the lists of packages may be missing or old: they are fetched, which needs root"
        );
        let mut update = program("apt-get")?;
        step("update the lists of packages", update.arg("update"))?;
        download_packages(packages, &download)?;
    }
    for entry in fs::read_dir(&download).context("reading the download")? {
        let package = entry?.path();
        if package.extension().is_some_and(|end| end == "deb") {
            unpack_package(&package, unpacked)?;
        }
    }
    fs::remove_dir_all(&download).context("removing the download")
}

fn download_packages(packages: &[&str], download: &Path) -> anyhow::Result<()> {
    make_anew(download, "partial")?;
    let mut archives = ffi::OsString::from("Dir::Cache::archives=");
    archives.push(download);
    let mut apt = program("apt-get")?;
    // Nothing is installed, so the lock, which only root could take, is not needed.
    apt.args(["install", "--download-only", "--no-install-recommends"])
        .args(["--yes", "--quiet", "-o", "Debug::NoLocking=1"])
        .args(["-o", "APT::Sandbox::User=", "-o"])
        .arg(archives)
        .args(packages);
    step(&format!("download {}", packages.join(", ")), &mut apt)
}

/// Where the libraries of unpacked packages are: these folders below `root`, for
/// each machine that Debian's packages are unpacked on.
fn libraries(root: &Path, folders: &[&str]) -> anyhow::Result<ffi::OsString> {
    let machines = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let paths = machines.iter().flat_map(|machine| {
        let paths = folders.iter();
        paths.map(|folder| root.join(folder.replace("MACHINE", machine)))
    });
    Ok(env::join_paths(paths)?)
}

/// Whether the Chromium below `root`, its driver and NSS's tool start.
fn chromium_runs(root: &Path) -> anyhow::Result<bool> {
    let libraries = libraries(root, &["usr/lib/MACHINE/pulseaudio", "usr/lib/MACHINE"])?;
    for binary in ["usr/lib/chromium/chromium", "usr/bin/chromedriver"] {
        let mut version = program(root.join(binary))?;
        version.arg("--version").env("LD_LIBRARY_PATH", &libraries);
        if output(&mut version)?.is_none() {
            return Ok(false);
        }
    }
    Ok(root.join("usr/bin/certutil").exists())
}

/// Whether the systemd-analyze below `root` prints its version.
fn systemd_runs(root: &Path) -> anyhow::Result<bool> {
    let libraries = libraries(
        root,
        &["usr/lib/MACHINE/systemd", "usr/lib/MACHINE", "lib/MACHINE"],
    )?;
    let mut analyze = program(root.join("usr/bin/systemd-analyze"))?;
    analyze.arg("--version").env("LD_LIBRARY_PATH", &libraries);
    Ok(output(&mut analyze)?.is_some())
}

/// Whether the library below `root` has another program see another time.
fn faketime_runs(root: &Path) -> anyhow::Result<bool> {
    let library = libraries(root, &["usr/lib/MACHINE/faketime"])?;
    let mut library = env::split_paths(&library).map(|folder| folder.join("libfaketimeMT.so.1"));
    let Some(library) = library.find(|library| library.is_file()) else {
        return Ok(false);
    };
    let mut date = program("date")?;
    date.arg("+%Y").env("LD_PRELOAD", library);
    let said = output(date.env("FAKETIME", "2001-01-01 00:00:00"))?;
    Ok(said.is_some_and(|said| said.trim() == "2001"))
}

/// Whether the consul below `root` prints the version that the tests know.
fn consul_runs(root: &Path) -> anyhow::Result<bool> {
    let said = output(program(root.join("usr/bin/consul"))?.arg("version"))?;
    Ok(said.is_some_and(|said| said.starts_with("Consul v1.8.7")))
}

/// Whether the slapd below `root` prints its version.
fn slapd_runs(root: &Path) -> anyhow::Result<bool> {
    let libraries = libraries(root, &["usr/lib/MACHINE"])?;
    let mut slapd = program(root.join("usr/sbin/slapd"))?;
    slapd.arg("-VV").env("LD_LIBRARY_PATH", libraries);
    Ok(output(&mut slapd)?.is_some() && root.join("usr/bin/ldapadd").exists())
}
