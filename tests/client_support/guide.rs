//! The examples of `docs/tracking-guide.md`, read from the guide itself: what the reader copies is what is run.
//!
//! An example is a fenced block whose info string gives a language and a name (Markdown shows the language alone). Its
//! placeholders are replaced as the reader would.

use std::fs;

/// The guide.
pub struct Guide {
    text: String,
}

/// One block of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub language: String,
    pub name: String,
    pub code: String,
}

impl Guide {
    pub fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tracking-guide.md");
        Self { text: fs::read_to_string(path).expect("the guide is there") }
    }

    /// Every block, in the guide's order.
    pub fn examples(&self) -> Vec<Example> {
        let mut examples = Vec::new();
        let mut open: Option<Example> = None;
        for line in self.text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    let (language, name) = info.split_once(' ').unwrap_or((info, ""));
                    open = Some(Example {
                        language: language.to_owned(),
                        name: name.to_owned(),
                        code: String::new(),
                    });
                }
                (Some(_), Some(_)) => examples.extend(open.take()),
                (Some(example), None) => {
                    example.code.push_str(line);
                    example.code.push('\n');
                }
                (None, None) => {}
            }
        }
        assert_eq!(open, None, "every block ends");
        examples
    }

    /// The block of that name, with `replacements` for its placeholders.
    pub fn example(&self, name: &str, replacements: &[(&str, &str)]) -> Example {
        let found = self.examples().into_iter().find(|example| example.name == name);
        let mut example = found.unwrap_or_else(|| panic!("the guide has no example {name:?}"));
        for (placeholder, value) in replacements {
            example.code = example.code.replace(placeholder, value);
        }
        example
    }
}
