//! Edits of `policy.toml`: comments and order stay, and only what the gateway would accept is written.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::policy_gate::Gate;
use crate::policy_file;

/// A policy that is being edited. Nothing is on disk before [`save`](Self::save).
pub struct Edit<'a> {
    gate: Gate<'a>,
    document: DocumentMut,
}

/// Why an edit is refused: one line.
type Refusal = String;

impl<'a> Edit<'a> {
    /// Reads the policy that is edited. One that is wrong must be mended by hand first.
    pub fn begin(file: &'a Path) -> Result<Self, Refusal> {
        let gate = Gate::enter(file)?;
        policy_file::parse(gate.text()?, file).map_err(|error| error.to_string())?;
        let document = gate.text()?.parse().map_err(|_| {
            format!(
                "{} cannot be edited; see `spa-admin policy check`",
                file.display()
            )
        })?;
        Ok(Self { gate, document })
    }

    /// Adds a resource.
    pub fn add_resource(&mut self, name: &str, to: &str, ports: &[String]) -> Result<(), Refusal> {
        let resources = self.table("resource")?;
        if resources.contains_key(name) {
            return Err(format!(
                "resource `{name}` exists; remove it first with `spa-admin resource remove {name}`"
            ));
        }
        let mut resource = InlineTable::new();
        resource.insert("to", to.into());
        resource.insert("ports", Value::Array(ports.iter().collect::<Array>()));
        resources.insert(name, value(resource));
        Ok(())
    }

    /// Removes a resource no rule speaks of any more.
    pub fn remove_resource(&mut self, name: &str) -> Result<(), Refusal> {
        if let Some(rule) = self.rule_naming("to", name) {
            return Err(format!(
                "resource `{name}` is allowed by rule `{rule}`; remove it from that rule in {} first",
                self.gate.file().display()
            ));
        }
        let removed = self.table("resource")?.remove(name);
        removed.map(|_| ()).ok_or_else(|| {
            format!("there is no resource `{name}`; `spa-admin resource list` shows them")
        })
    }

    /// Puts somebody into a group; the group is made when it is not there. Tells whether anything changed.
    pub fn add_member(&mut self, group: &str, user: &str) -> Result<bool, Refusal> {
        let groups = self.table("group")?;
        let members = groups
            .entry(group)
            .or_insert_with(|| value(Array::new()))
            .as_array_mut()
            .ok_or_else(|| format!("group `{group}` is no list of names; write it as one"))?;
        if members.iter().any(|member| member.as_str() == Some(user)) {
            return Ok(false);
        }
        members.push(user);
        Ok(true)
    }

    /// Takes somebody out of every group. Tells whether anything changed.
    pub fn remove_member(&mut self, user: &str) -> Result<bool, Refusal> {
        let mut changed = false;
        for (_, members) in self.table("group")?.iter_mut() {
            if let Some(members) = members.as_array_mut() {
                changed |= take_out(members, user);
            }
        }
        Ok(changed)
    }

    /// Allows a group a resource.
    pub fn allow(
        &mut self,
        group: &str,
        resource: &str,
        length: Option<&str>,
    ) -> Result<(), Refusal> {
        if !self.table("group")?.contains_key(group) {
            return Err(format!(
                "there is no group `{group}`; put somebody into it with `spa-admin user add NAME --group {group}`"
            ));
        }
        if !self.table("resource")?.contains_key(resource) {
            return Err(format!(
                "there is no resource `{resource}`; add it with `spa-admin resource add {resource} ADDRESS PORT/PROTO`"
            ));
        }
        if let Some(rule) = self.rule_that_says(group, resource, length) {
            return Err(format!(
                "rule `{rule}` says so already; `spa-admin resource list` shows the rules of each resource"
            ));
        }
        let mut rule = Table::new();
        rule.insert(
            "name",
            value(self.free_rule_name(&format!("{group}-{resource}"))),
        );
        rule.insert("who", value(Array::from_iter([format!("group:{group}")])));
        rule.insert("to", value(Array::from_iter([resource])));
        if let Some(length) = length {
            rule.insert("for", value(length));
        }
        self.allows()?.push(rule);
        Ok(())
    }

    /// Takes a resource from a group: rules lose what names both, and leave when nothing is left of them.
    pub fn disallow(&mut self, group: &str, resource: &str) -> Result<(), Refusal> {
        let who = format!("group:{group}");
        let names = |rule: &Table, key: &str, wanted: &str| {
            let list = rule.get(key).and_then(Item::as_array);
            list.is_some_and(|list| list.iter().any(|one| one.as_str() == Some(wanted)))
        };
        let alone = |rule: &Table, key: &str| {
            let list = rule.get(key).and_then(Item::as_array);
            list.is_some_and(|list| list.len() == 1)
        };
        let gives = |rule: &Table| names(rule, "who", &who) && names(rule, "to", resource);
        if !self.rules().any(gives) {
            return Err(format!(
                "no rule allows group `{group}` resource `{resource}`; `spa-admin resource list` shows the rules of each resource"
            ));
        }
        let wider = |rule: &&Table| gives(rule) && !alone(rule, "who") && !alone(rule, "to");
        if let Some(rule) = self.rules().find(wider) {
            let name = rule.get("name").and_then(Item::as_str).unwrap_or_default();
            return Err(format!(
                "rule `{name}` allows several groups several resources; split it by hand in {}, then `spa-admin policy reload`",
                self.gate.file().display()
            ));
        }
        let rules = self
            .document
            .get_mut("allow")
            .and_then(Item::as_array_of_tables_mut);
        let Some(rules) = rules else { return Ok(()) };
        rules.retain(|rule| !(gives(rule) && alone(rule, "who") && alone(rule, "to")));
        for rule in rules.iter_mut().filter(|rule| gives(rule)) {
            let (key, one) = if alone(rule, "to") {
                ("who", who.as_str())
            } else {
                ("to", resource)
            };
            if let Some(list) = rule.get_mut(key).and_then(Item::as_array_mut) {
                take_out(list, one);
            }
        }
        Ok(())
    }

    /// Ends the observe mode of a resource.
    pub fn enforce(&mut self, resource: &str) -> Result<(), Refusal> {
        let found = self.table("resource")?.get_mut(resource);
        let table = found.and_then(Item::as_table_like_mut).ok_or_else(|| {
            format!("there is no resource `{resource}`; `spa-admin resource list` shows them")
        })?;
        match table.get("mode").and_then(Item::as_str) {
            Some("observe") => {}
            Some(_) | None => {
                return Err(format!(
                    "resource `{resource}` is enforced already; nothing was changed"
                ));
            }
        }
        table.insert("mode", value("enforce"));
        Ok(())
    }

    /// Adds a rule that was learned, with a comment above it.
    pub fn add_learned(
        &mut self,
        resource: &str,
        who: &[String],
        comment: &str,
    ) -> Result<(), Refusal> {
        let name = self.free_rule_name(&format!("learned-{resource}"));
        let mut rule = Table::new();
        rule.decor_mut().set_prefix(format!("\n# {comment}\n"));
        rule.insert("name", value(name));
        rule.insert("who", value(who.iter().collect::<Array>()));
        rule.insert("to", value(Array::from_iter([resource])));
        self.allows()?.push(rule);
        Ok(())
    }

    /// Gives what stands in the file.
    pub fn before(&self) -> Result<&str, Refusal> {
        self.gate.text()
    }

    fn allows(&mut self) -> Result<&mut ArrayOfTables, Refusal> {
        self.document
            .entry("allow")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
            .as_array_of_tables_mut()
            .ok_or_else(|| {
                "`allow` is no list of rules; write each rule below `[[allow]]`".to_owned()
            })
    }

    /// Names the rule that says exactly this and no more.
    fn rule_that_says(&self, group: &str, resource: &str, length: Option<&str>) -> Option<String> {
        let only = |rule: &Table, key: &str, wanted: &str| {
            let list = rule.get(key).and_then(Item::as_array);
            list.is_some_and(|list| {
                list.len() == 1 && list.get(0).and_then(Value::as_str) == Some(wanted)
            })
        };
        let text = |rule: &Table, key: &str| Some(rule.get(key)?.as_str()?.to_owned());
        let rules = self.document.get("allow")?.as_array_of_tables()?;
        let same = rules.iter().find(|rule| {
            only(rule, "who", &format!("group:{group}"))
                && only(rule, "to", resource)
                && text(rule, "for").as_deref() == length
                && rule
                    .iter()
                    .all(|(key, _)| matches!(key, "name" | "who" | "to" | "for"))
        })?;
        text(same, "name")
    }

    /// Writes the edit, if the gateway would accept it. Gives the gate, so that it can be put back.
    pub fn save(self) -> Result<Gate<'a>, Refusal> {
        let text = self.checked()?;
        self.gate.write(&text)?;
        Ok(self.gate)
    }

    /// Gives the text, if the gateway would accept it.
    pub fn checked(&self) -> Result<String, Refusal> {
        let text = self.document.to_string();
        match policy_file::parse(&text, self.gate.file()) {
            Ok(_) => Ok(text),
            // The line is of a text nobody has seen: only what and remedy help.
            Err(policy_file::PolicyFileError::Content { error, .. }) => Err(format!(
                "{}; {}; nothing was changed",
                error.what, error.remedy
            )),
            Err(other) => Err(other.to_string()),
        }
    }

    fn table(&mut self, name: &str) -> Result<&mut Table, Refusal> {
        self.document
            .entry(name)
            .or_insert_with(|| Item::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{name}` is no table; write it as [{name}]"))
    }

    fn rules(&self) -> impl Iterator<Item = &Table> {
        let rules = self
            .document
            .get("allow")
            .and_then(Item::as_array_of_tables);
        rules.into_iter().flat_map(ArrayOfTables::iter)
    }

    fn rule_naming(&self, key: &str, name: &str) -> Option<String> {
        let names = |rule: &&Table| {
            rule.get(key)
                .and_then(Item::as_array)
                .is_some_and(|list| list.iter().any(|one| one.as_str() == Some(name)))
        };
        let rule = self.rules().find(names)?;
        Some(rule.get("name")?.as_str()?.to_owned())
    }

    /// `eng-wiki`, or `eng-wiki-2` where that is taken.
    fn free_rule_name(&self, wanted: &str) -> String {
        let taken = |name: &str| {
            self.rules()
                .any(|rule| rule.get("name").and_then(Item::as_str) == Some(name))
        };
        if !taken(wanted) {
            return wanted.to_owned();
        }
        (2..)
            .map(|number: u32| format!("{wanted}-{number}"))
            .find(|name| !taken(name))
            .expect("a policy has fewer rules than there are numbers")
    }
}

/// Takes an entry out of a list; tells whether it was there.
fn take_out(list: &mut Array, one: &str) -> bool {
    let before = list.len();
    list.retain(|listed| listed.as_str() != Some(one));
    // The space after a comma belongs to the entry that follows it.
    if let Some(first) = list.get_mut(0)
        && first.decor().prefix().and_then(|prefix| prefix.as_str()) == Some(" ")
    {
        first.decor_mut().set_prefix("");
    }
    list.len() != before
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::*;
    use crate::files;

    const POLICY: &str = "# ours\nversion = 1\n\n[group]\neng = [\"ana\"] # the engineers\n\n\
        [resource]\n# the wiki\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n\n\
        [[allow]]\nname = \"eng-wiki\" # everybody's\nwho = [\"group:eng\"]\nto = [\"wiki\"]\n";

    fn policy(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("policy.toml");
        files::create_new(&file, 0o640, text.as_bytes()).expect("written");
        (dir, file)
    }

    #[test]
    fn an_edit_keeps_every_comment_and_line() {
        let (_dir, file) = policy(POLICY);
        let mut edit = Edit::begin(&file).expect("sound");
        edit.add_resource("db", "10.0.6.0/28", &["5432/tcp".to_owned()])
            .expect("added");
        assert!(edit.add_member("eng", "bo").expect("added"));
        assert!(edit.add_member("ops", "bo").expect("made"));
        edit.allow("ops", "db", Some("2h")).expect("allowed");
        edit.save().expect("accepted");
        let text = std::fs::read_to_string(&file).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# ours",
            "# the wiki",
            "eng = [\"ana\", \"bo\"] # the engineers",
            "name = \"eng-wiki\" # everybody's",
        ] {
            assert!(lines.contains(&line), "{line} is missing in\n{text}");
        }
        let policy = policy_file::parse(&text, &file).expect("sound");
        assert_eq!(policy.rules().len(), 2);
        assert_eq!(file.metadata().expect("metadata").mode() & 0o777, 0o640);
    }

    #[test]
    fn a_bad_edit_changes_nothing() {
        let (_dir, file) = policy(POLICY);
        let mut edit = Edit::begin(&file).expect("sound");
        edit.add_resource("db", "10.0.6.1/28", &["5432/tcp".to_owned()])
            .expect("not checked yet");
        let refusal = edit.save().expect_err("refused");
        assert!(
            refusal.ends_with("nothing was changed") && !refusal.contains('\n'),
            "{refusal}"
        );
        assert_eq!(std::fs::read_to_string(&file).expect("read"), POLICY);
    }

    #[test]
    fn what_does_not_exist_is_said_with_the_remedy() {
        let (_dir, file) = policy(POLICY);
        let mut edit = Edit::begin(&file).expect("sound");
        let no_group = edit.allow("ops", "wiki", None).expect_err("refused");
        assert!(
            no_group.contains("there is no group `ops`; put"),
            "{no_group}"
        );
        let no_resource = edit.allow("eng", "db", None).expect_err("refused");
        assert!(
            no_resource.contains("there is no resource `db`; add"),
            "{no_resource}"
        );
        assert!(edit.remove_resource("db").is_err());
        assert!(
            edit.add_resource("wiki", "10.0.0.1", &[])
                .expect_err("refused")
                .contains("exists")
        );
        let used = edit.remove_resource("wiki").expect_err("refused");
        assert!(used.contains("rule `eng-wiki`"), "{used}");
    }

    #[test]
    fn what_was_allowed_is_taken_back() {
        let more = format!(
            "{POLICY}[[allow]]\nname = \"both\" # two groups\nwho = [\"group:eng\", \"group:ops\"]\nto = [\"wiki\"]\n"
        );
        let more = more.replace("[group]\n", "[group]\nops = [\"bo\"]\n");
        let (_dir, file) = policy(&more);
        let mut edit = Edit::begin(&file).expect("sound");
        edit.disallow("eng", "wiki").expect("taken back");
        let text = edit.checked().expect("accepted");
        assert!(!text.contains("eng-wiki"), "{text}");
        assert!(text.contains("name = \"both\" # two groups"), "{text}");
        assert!(text.contains("who = [\"group:ops\"]"), "{text}");
        let refusal = edit.disallow("eng", "wiki").expect_err("nothing is left");
        assert!(refusal.contains("no rule allows group `eng`"), "{refusal}");
        edit.disallow("ops", "wiki").expect("taken back");
        let text = edit.checked().expect("accepted");
        assert!(
            policy_file::parse(&text, &file)
                .expect("sound")
                .rules()
                .is_empty()
        );
    }

    #[test]
    fn a_second_rule_for_the_same_has_a_name_of_its_own() {
        let (_dir, file) = policy(POLICY);
        let mut edit = Edit::begin(&file).expect("sound");
        edit.allow("eng", "wiki", Some("1h")).expect("allowed");
        assert!(edit.checked().expect("accepted").contains("eng-wiki-2"));
        let again = edit.allow("eng", "wiki", Some("1h")).expect_err("refused");
        assert!(
            again.contains("rule `eng-wiki-2` says so already"),
            "{again}"
        );
    }

    #[test]
    fn a_member_leaves_every_group() {
        let (_dir, file) = policy(POLICY);
        let mut edit = Edit::begin(&file).expect("sound");
        assert!(edit.add_member("ops", "ana").expect("added"));
        assert!(!edit.add_member("ops", "ana").expect("there"));
        assert!(edit.remove_member("ana").expect("removed"));
        assert!(!edit.remove_member("ana").expect("gone"));
        let text = edit.checked().expect("accepted");
        assert!(!text.contains("ana"), "{text}");
    }

    #[test]
    fn a_policy_without_sections_gets_them() {
        let (_dir, file) = policy("version = 1\n");
        let mut edit = Edit::begin(&file).expect("sound");
        edit.add_member("eng", "ana").expect("added");
        edit.add_resource("wiki", "10.0.5.10", &["443/tcp".to_owned()])
            .expect("added");
        edit.allow("eng", "wiki", None).expect("allowed");
        edit.checked().expect("accepted");
    }
}
