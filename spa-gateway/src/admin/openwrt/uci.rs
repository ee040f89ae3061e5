//! Files of OpenWrt's configuration (UCI), as far as we read them: sections, options, lists.
//!
//! Whatever a line is that UCI would not write is an error with its number: half a configuration is none.

use std::fs;
use std::path::{Path, PathBuf};

/// One file, like `/etc/config/network`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Where it is.
    pub file: PathBuf,
    /// Its sections, in order.
    pub sections: Vec<Section>,
}

/// One section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Section {
    /// Its type: `interface`, `zone`.
    pub kind: String,
    /// Its name; empty when it has none.
    pub name: String,
    values: Vec<(String, String)>,
}

impl Package {
    /// Reads one.
    ///
    /// # Errors
    /// One line.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::parse(&text, file)
    }

    /// Parses the text of `file`.
    ///
    /// # Errors
    /// One line that names file and line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, String> {
        let mut sections: Vec<Section> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |why: &str| format!("{}:{number}: {why}", file.display());
            let words = words(line).ok_or_else(|| wrong("a quote is not closed; close it"))?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match (&words[..], sections.last_mut()) {
                ([], _) | (["package", _], _) => {}
                (["config", kind], _) => sections.push(Section::new(kind, "")),
                (["config", kind, name], _) => sections.push(Section::new(kind, name)),
                (["option" | "list", key, value], Some(section)) => {
                    let pair = ((*key).to_owned(), (*value).to_owned());
                    section.values.push(pair);
                }
                _ => {
                    return Err(wrong(
                        "no line of UCI; write `config TYPE 'NAME'`, `option NAME 'VALUE'` or `list NAME 'VALUE'`",
                    ));
                }
            }
        }
        Ok(Self {
            file: file.to_owned(),
            sections,
        })
    }

    /// All sections of a type.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections
            .iter()
            .filter(move |section| section.kind == kind)
    }
}

impl Section {
    fn new(kind: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            values: Vec::new(),
        }
    }

    /// The value of an option; the last one counts, as it does for UCI.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        let of_key = self.values.iter().rev().find(|(known, _)| known == key);
        of_key.map(|(_, value)| value.as_str())
    }

    /// All values of a list.
    pub fn list<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let of_key = self.values.iter().filter(move |(known, _)| known == key);
        of_key.map(|(_, value)| value.as_str())
    }

    /// Every key there is.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|(key, _)| key.as_str())
    }
}

/// The words of a line: bare, 'quoted' or "quoted", parts side by side being one. `None` when a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let into = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        end if end == character => break,
                        '\\' if character == '"' => into.push(characters.next()?),
                        other => into.push(other),
                    }
                }
            }
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_openwrt_is_read() {
        let text = "package network\n\nconfig interface 'loopback'\n\toption device 'lo'\n# one\nconfig device\n\toption name \"br-lan\"\n\tlist ports 'lan1'\n\tlist ports lan2\n\toption note 'it''s'\n";
        let package = Package::parse(text, Path::new("/etc/config/network")).expect("sound");
        let [loopback, device] = &package.sections[..] else {
            panic!("two sections: {package:?}")
        };
        assert_eq!(
            (&*loopback.kind, &*loopback.name),
            ("interface", "loopback")
        );
        assert_eq!(loopback.option("device"), Some("lo"));
        assert_eq!(device.list("ports").collect::<Vec<_>>(), ["lan1", "lan2"]);
        assert_eq!(device.option("note"), Some("its"));
        assert_eq!(device.option("nothing"), None);
    }

    #[test]
    fn what_is_no_uci_names_its_line() {
        for (text, expected) in [
            ("config a\n\toption b 'c\n", ":2: a quote is not closed"),
            ("option a b\n", ":1: no line of UCI"),
            ("config a\n\toption b\n", ":2: no line of UCI"),
        ] {
            let error = Package::parse(text, Path::new("/etc/config/x")).expect_err("wrong");
            assert!(error.contains(expected), "{error}");
        }
    }
}
