//! Where each setting comes from: a flag, the environment, the file, or nowhere.

use std::fmt;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{ConfigError, Settings};

/// The settings of a command line with its environment, and those of the file that it names.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) given: Settings,
    pub(crate) file: Settings,
}

impl Layers {
    /// Reads the file, if there is one.
    pub(crate) fn read(given: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Ok(Self { given, file: Settings::default() }) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let file = toml::from_str(&text).map_err(|error| {
            let problem = error.to_string().trim_end().to_owned();
            ConfigError::File { path: path.to_owned(), problem }
        })?;
        Ok(Self { given, file })
    }

    /// All that is set: what was given goes before the file.
    pub(crate) fn merged(&self) -> Settings {
        self.given.clone().or(self.file.clone())
    }
}

/// Says of each setting that a command line or its environment gave which of the two it was.
#[derive(Debug)]
pub(crate) struct Sources {
    flags: Vec<&'static str>,
}

impl Sources {
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let is_flag = |name: &&&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        Self { flags: Settings::NAMES.iter().filter(is_flag).copied().collect() }
    }

    /// Every setting that has a value, with where it comes from, as a settings file.
    pub(crate) fn show(&self, layers: &Layers) -> Effective {
        let table = |settings: &Settings| toml::Table::try_from(settings).unwrap_or_default();
        let (given, file) = (table(&layers.given), table(&layers.file));
        let effective = table(&layers.merged().or(Settings::defaults()));
        let line = |name: &&'static str| {
            let key = name.replace('_', "-");
            let value = effective.get(&key)?.to_string();
            let source = match () {
                () if self.flags.contains(name) => "flag",
                () if given.contains_key(&key) => "environment",
                () if file.contains_key(&key) => "file",
                () => "default",
            };
            Some((key, value, source))
        };
        Effective(Settings::NAMES.iter().filter_map(line).collect())
    }
}

/// Names, values and where they come from.
#[derive(Debug)]
pub(crate) struct Effective(Vec<(String, String, &'static str)>);

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value, source) in &self.0 {
            writeln!(f, "{:<60} # {source}", format!("{key} = {value}"))?;
        }
        Ok(())
    }
}
