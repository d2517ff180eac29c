//! `--profile`: the files that a profile is written to.

use std::path::{Path, PathBuf};

use armlet::Machine;
use armlet::profile::Symbols;

use crate::outputs::check_writable;
use crate::run::cannot_write;

/// What is called so in messages.
const WHAT: &str = "profile";

/// Where a profile goes, and what gives its addresses names.
pub struct Files {
    folded: PathBuf,
    graph: PathBuf,
    table: PathBuf,
    symbols: Vec<Symbols>,
}

impl Files {
    /// Reads the symbols, and finds out that the files can be written.
    ///
    /// # Errors
    /// What to say.
    pub fn prepare(path: &Path, symbols: &[PathBuf]) -> Result<Self, String> {
        let (graph, table) = (path.with_extension("svg"), path.with_extension("txt"));
        if graph == path || table == path {
            let path = path.display();
            return Err(format!(
                "--profile '{path}' is the name of the graph or of the table: choose another ending, such as .folded"
            ));
        }
        let files = Self {
            folded: path.into(),
            graph,
            table,
            symbols: symbols
                .iter()
                .map(|p| Symbols::open(p))
                .collect::<Result<_, _>>()
                .map_err(|e| e.to_string())?,
        };
        for path in [&files.folded, &files.graph, &files.table] {
            check_writable(path).map_err(|e| cannot_write(WHAT, path, &e))?;
        }
        Ok(files)
    }

    /// Writes the profile of `machine`'s run.
    ///
    /// # Errors
    /// What to say.
    pub fn write(self, machine: &Machine) -> Result<(), String> {
        let Some(profile) = machine.profile(self.symbols) else { return Ok(()) };
        let texts = [
            (&self.folded, profile.folded()),
            (&self.graph, profile.flame_graph("Where the guest spent its time")),
            (&self.table, profile.table()),
        ];
        for (path, text) in texts {
            std::fs::write(path, text).map_err(|e| cannot_write(WHAT, path, &e))?;
        }
        Ok(())
    }
}
