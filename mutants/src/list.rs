//! What the mutants are: `mutants.toml`, read and checked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The mutants, in the order of their file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Each a single mistake.
    #[serde(rename = "mutant")]
    pub mutants: Vec<Mutant>,
}

/// One mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// A short name, for the command line.
    pub name: String,
    /// What is wrong, for a person.
    pub mistake: String,
    /// Which checks are to look for it, in this order, until one finds it.
    pub checks: Vec<Check>,
    /// The patch.
    #[serde(rename = "edit")]
    pub edits: Vec<Edit>,
}

/// What looks for a mutant. Exhaustive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `onceloop model` with these worlds.
    Model(Vec<String>),
    /// `onceloop sim` with so many seeds.
    Sim(u64),
}

/// A place in a source file, and what stands there in the mutant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, from the root of the tree.
    pub file: String,
    /// What stands there now, exactly once in the file.
    pub find: String,
    /// What the mutant has instead.
    pub replace: String,
}

impl List {
    /// Reads the list of the tree at `root`.
    ///
    /// # Errors
    /// If it is not there, or not of the form that this version reads.
    pub fn read(root: &Path) -> Result<List> {
        let path = root.join("mutants/mutants.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let list: List = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for (i, mutant) in list.mutants.iter().enumerate() {
            let is_new = list.mutants[..i].iter().all(|other| other.name != mutant.name);
            ensure!(is_new, "two mutants are called {}", mutant.name);
        }
        Ok(list)
    }
}

impl Mutant {
    /// Returns the files of the tree at `root` as this mutant has them: path and content.
    ///
    /// # Errors
    /// If a patch does not apply: its text must stand exactly once in its file.
    pub fn apply(&self, root: &Path) -> Result<Vec<(String, String)>> {
        let mut files: Vec<(String, String)> = Vec::new();
        for edit in &self.edits {
            let place = match files.iter().position(|(file, _)| *file == edit.file) {
                Some(place) => place,
                None => {
                    let text = fs::read_to_string(root.join(&edit.file))
                        .with_context(|| format!("{}: {}", self.name, edit.file))?;
                    files.push((edit.file.clone(), text));
                    files.len() - 1
                }
            };
            let text = &mut files[place].1;
            let count = text.matches(&edit.find).count();
            ensure!(
                count == 1,
                "{}: in {} this stands {count} times, not once:\n{}",
                self.name,
                edit.file,
                edit.find
            );
            *text = text.replacen(&edit.find, &edit.replace, 1);
        }
        Ok(files)
    }
}
