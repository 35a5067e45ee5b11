//! The peers' program, `onceloop-peers`: a workspace of its own, built when a peer is first asked
//! for, so that nobody else compiles what the peers depend on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

use crate::options::ServerKind;

/// Where it is, in a checkout.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml");

/// Returns what this machine lacks to run `server`, and how to get it; `None` if it lacks nothing.
pub fn missing(server: ServerKind) -> Option<String> {
    let (program, package) = match server {
        ServerKind::Redis => ("redis-server", "redis-server"),
        ServerKind::Go => ("go", "golang-go"),
        _ => return None,
    };
    let is_there = |folder: PathBuf| folder.join(program).is_file();
    if env::split_paths(&env::var_os("PATH")?).any(is_there) {
        return None;
    }
    Some(format!(
        "there is no `{program}` in PATH; on Debian and its kin, `apt-get install {package}` brings \
         it"
    ))
}

/// Returns the command that starts the parts for `server`: this program, or the peers'.
pub(crate) fn command(server: ServerKind) -> Result<Command> {
    if !server.is_peer() {
        return Ok(Command::new(env::current_exe().context("finding this program's own file")?));
    }
    static PROGRAM: OnceLock<Result<PathBuf>> = OnceLock::new();
    static GO: OnceLock<Result<()>> = OnceLock::new();
    let program = once(&PROGRAM, build)?;
    if server == ServerKind::Go {
        once(&GO, || build_go(program))?;
    }
    let mut command = Command::new(program);
    command.arg(server.to_string());
    Ok(command)
}

/// Returns what `work` returned when it was done first.
fn once<T>(outcome: &OnceLock<Result<T>>, work: impl FnOnce() -> Result<T>) -> Result<&T> {
    outcome.get_or_init(work).as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Has the peers' program build Go's: a server that is started is not waited for so long.
fn build_go(program: &Path) -> Result<()> {
    let status = Command::new(program).args(["go", "build"]).stdin(Stdio::null()).status();
    ensure!(status.context("building the Go peer")?.success(), "the Go peer could not be built");
    Ok(())
}

/// Builds the peers' program if need be, and returns where it is.
fn build() -> Result<PathBuf> {
    ensure!(Path::new(MANIFEST).exists(), "the peers are part of the source tree: use a checkout");
    let target = target_folder()?;
    let program = target.join("release/onceloop-peers");
    if !program.exists() {
        eprintln!("c10k: building the peers' program, for the first time: it takes a few minutes");
    }
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--manifest-path", MANIFEST])
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .status()
        .context("running cargo, which builds the peers' program")?;
    ensure!(status.success(), "cargo could not build the peers' program");
    Ok(program)
}

/// Returns a folder beside those of this program's own builds, which git ignores already.
fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("finding this program's own file")?;
    let target = program.parent().and_then(Path::parent).context("it is in a folder of builds")?;
    Ok(target.join("peers"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn only_redis_and_go_can_be_missing() {
        for &server in ServerKind::value_variants() {
            match server {
                // Whether they are is the machine's matter: if so, it is said how to get them.
                ServerKind::Redis | ServerKind::Go => {
                    assert!(missing(server).is_none_or(|why| why.contains("apt-get install")));
                }
                _ => assert_eq!(missing(server), None),
            }
        }
    }

    #[test]
    fn our_own_servers_are_parts_of_this_program() {
        let own = env::current_exe().expect("it has a file");
        for &server in ServerKind::value_variants().iter().filter(|server| !server.is_peer()) {
            assert_eq!(command(server).expect("it is there").get_program(), own);
        }
    }
}
