//! A copy of the tree in which mutants are built, so that the tree itself is never changed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where the tree begins that this program was built from.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The copy. What it has built stays in its own target folder, so that the next mutant builds only
/// what the patch touches.
pub struct Tree {
    root: PathBuf,
    copy: PathBuf,
}

impl Tree {
    /// Copies the files that git knows below `root`, as they are now.
    ///
    /// # Errors
    /// If git does not answer, or a file cannot be read or written.
    pub fn copy(root: &Path) -> Result<Tree> {
        let root = root.canonicalize().context("the tree")?;
        let copy = root.join("target/mutants/tree");
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .context("git ls-files")?;
        ensure!(output.status.success(), "git ls-files failed");
        let names = String::from_utf8(output.stdout).context("a file's name")?;
        for name in names.split_terminator('\0') {
            match fs::read(root.join(name)) {
                Ok(content) => write_if_new(&copy.join(name), &content)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(name.to_owned()),
            }
        }
        Ok(Tree { root, copy })
    }

    /// Returns where the copy is.
    pub fn path(&self) -> &Path {
        &self.copy
    }

    /// Puts a mutant's files in place of the originals until the guard is dropped.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn patch(&self, files: &[(String, String)]) -> Result<Patched<'_>> {
        let patched =
            Patched { tree: self, names: files.iter().map(|(name, _)| name.clone()).collect() };
        for (name, content) in files {
            fs::write(self.copy.join(name), content).context(name.clone())?;
        }
        Ok(patched)
    }
}

/// A mutant in the copy; the originals come back when it is dropped.
pub struct Patched<'a> {
    tree: &'a Tree,
    names: Vec<String>,
}

impl Drop for Patched<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            let original = fs::read(self.tree.root.join(name));
            let restored =
                original.and_then(|content| fs::write(self.tree.copy.join(name), content));
            if let Err(error) = restored {
                eprintln!("mutants: {name} stays patched in the copy: {error}");
            }
        }
    }
}

/// A file that is the same is left alone: its time of change is what the next build looks at.
fn write_if_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}
