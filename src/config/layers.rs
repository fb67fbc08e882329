//! Flags over the environment over the file over the defaults, with every problem found in one go.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{Config, FILE_DEFAULT, SETTINGS, Setting, values};

/// Where settings come from. All of it is handed in, so that reading is a function of its input.
#[derive(Debug, Default)]
pub struct Layers {
    /// Flags by name, as given on the command line.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment's variables that start with `TALLY_`. One that is no setting is not an error: Kubernetes sets
    /// `TALLY_PORT` and its like wherever a service is named so.
    pub env: BTreeMap<String, String>,
    /// The file that `--config` (or `TALLY_CONFIG`) names; it must exist. Otherwise [`FILE_DEFAULT`] may.
    pub file: Option<PathBuf>,
}

/// What is wrong with the settings: everything, not only the first.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError(pub Vec<Problem>);

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, under the name that its source uses.
    pub name: String,
    /// Where it came from: `flag`, `environment`, or the file's path.
    pub source: String,
    /// The value, `[secret]` where it may hold one; empty where there is none to show.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} setting{} can't be used:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.source)?;
        if !self.value.is_empty() {
            write!(f, " is `{}`", self.value)?;
        }
        write!(f, ": expected {}", self.expected)
    }
}

impl Layers {
    /// Reads the configuration, or says everything that is wrong.
    pub fn read(&self) -> Result<Config, SettingsError> {
        let mut problems = Vec::new();
        let file = self.read_file(&mut problems);
        let mut config = Config::default();
        for setting in SETTINGS {
            let Some((name, source, value)) = self.winner(setting, &file) else { continue };
            if !(setting.apply)(&mut config, value) {
                let shown = if setting.secret { "[secret]".to_owned() } else { value.to_owned() };
                problems.push(Problem { name, source, value: shown, expected: setting.expected.to_owned() });
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(SettingsError(problems)) }
    }

    /// Whether a flag holds a password: command lines can be read by every user of the machine.
    #[must_use]
    pub fn shows_password(&self) -> bool {
        let secret = SETTINGS.iter().filter(|setting| setting.secret);
        secret.filter_map(|setting| self.flags.get(setting.flag)).any(|text| values::has_password(text))
    }

    /// The layer that decides a setting: its name there, the layer's name, the value.
    fn winner<'a>(&'a self, setting: &Setting, file: &'a FileValues) -> Option<(String, String, &'a str)> {
        let (env, key) = (setting.env(), setting.key());
        if let Some(value) = self.flags.get(setting.flag) {
            Some((format!("--{}", setting.flag), "flag".to_owned(), value))
        } else if let Some(value) = self.env.get(&env) {
            Some((env, "environment".to_owned(), value))
        } else {
            file.values.get(&key).map(|value| (key, file.shown.clone(), value.as_str()))
        }
    }

    fn read_file(&self, problems: &mut Vec<Problem>) -> FileValues {
        let named = self.file.as_deref();
        let path = named.unwrap_or(Path::new(FILE_DEFAULT));
        let shown = path.display().to_string();
        let mut wrong = |name: &str, value: String, expected: String| {
            problems.push(Problem { name: name.to_owned(), source: shown.clone(), value, expected });
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
            Err(error) => {
                wrong("--config", String::new(), format!("a readable file, but {error}"));
                String::new()
            }
        };
        let mut values = BTreeMap::new();
        match text.parse::<toml::Table>() {
            Ok(table) => {
                for (key, value) in table {
                    let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == key) else {
                        wrong(&key, String::new(), known_keys());
                        continue;
                    };
                    // That file lies in the current folder, whose owner may be anybody, and a library runs its code.
                    if named.is_none() && setting.flag == "libchdb" {
                        wrong(&key, value.to_string(), setting.expected.into());
                        continue;
                    }
                    match plain(&value) {
                        Some(text) => _ = values.insert(key, text),
                        None if setting.secret => wrong(&key, "[secret]".into(), setting.expected.into()),
                        None => wrong(&key, value.to_string(), setting.expected.into()),
                    }
                }
            }
            // The message would quote the line, and a line may hold a password.
            Err(error) => {
                wrong("file", String::new(), format!("TOML: {}{}", error.message(), place(&error, &text)));
            }
        }
        FileValues { shown, values }
    }
}

struct FileValues {
    shown: String,
    values: BTreeMap<String, String>,
}

/// The value as a flag would write it.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(parts) => {
            parts.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>().map(|parts| parts.join(","))
        }
        _ => None,
    }
}

fn place(error: &toml::de::Error, text: &str) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return String::new() };
    format!(", line {}", before.matches('\n').count() + 1)
}

fn known_keys() -> String {
    let keys: Vec<_> = SETTINGS.iter().map(Setting::key).collect();
    format!("one of the known keys: {}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(
        flags: &[(&'static str, &str)],
        env: &[(&str, &str)],
        file: &str,
    ) -> (Layers, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tally.toml");
        std::fs::write(&path, file).expect("written");
        let layers = Layers {
            flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            file: Some(path),
        };
        (layers, folder)
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file() {
        let file = "workers = 1\nconnections_max = 10\nbody_bytes_max = \"2KiB\"\n";
        let env = [("TALLY_WORKERS", "2"), ("TALLY_CONNECTIONS_MAX", "20")];
        let (layers, _folder) = layers(&[("workers", "3")], &env, file);
        let config = layers.read().expect("all good");
        assert_eq!((config.workers, config.connections_max, config.body_bytes_max), (Some(3), 20, 2048));
    }

    #[test]
    fn every_problem_is_reported_at_once_and_secrets_are_not_shown() {
        let file = "workers = 0\ncolour = \"red\"\nspool_bytes_max = true\n";
        let env = [("TALLY_CLICKHOUSE_URL", "ftp://user:hunter2@host/"), ("TALLY_LISTEN", "nowhere")];
        let (layers, _folder) = layers(&[("rate-limit-per-minute", "-1")], &env, file);
        let error = layers.read().expect_err("six problems");
        let mut names: Vec<_> = error.0.iter().map(|problem| problem.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "--rate-limit-per-minute",
                "TALLY_CLICKHOUSE_URL",
                "TALLY_LISTEN",
                "colour",
                "spool_bytes_max",
                "workers"
            ]
        );
        let text = error.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("--rate-limit-per-minute (flag) is `-1`: expected a whole number"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_named_with_its_line_but_not_quoted() {
        let (layers, _folder) =
            layers(&[("workers", "x")], &[], "listen = \"a\"\nclickhouse_url = hunter2 !\n");
        let text = layers.read().expect_err("two problems").to_string();
        assert!(text.contains("line 2") && text.contains("--workers") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_named_file_must_exist() {
        let layers = Layers { file: Some("/nowhere/tally.toml".into()), ..Layers::default() };
        assert!(layers.read().is_err());
    }

    #[test]
    fn a_list_in_the_file_reads_as_commas() {
        let (layers, _folder) = layers(&[], &[], "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n");
        assert_eq!(layers.read().expect("good").trusted_proxies.len(), 2);
    }
}
