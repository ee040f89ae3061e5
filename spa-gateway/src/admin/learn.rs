//! `learn`: what observe mode let through, and the smallest rules that would allow just that.
//!
//! Invariant: a rule names nobody who was not seen. A group stands for its members only if every one was.

use std::collections::{BTreeMap, BTreeSet};

use spa_gateway_core::policy::Mode;
use spa_gateway_core::{Name, Policy};

use super::cli::LearnCommand;
use super::policy_edit::Edit;
use super::policy_versions::{difference, print_losses};
use super::run::{Admin, print_or_json};
use super::show;
use crate::calendar::utc;
use crate::control::protocol::{Learned, Loss, Request};
use crate::policy_file;

/// Fewer members are named one by one: a group may grow, and a rule should not grow with it for nothing.
const GROUP_FROM: usize = 2;

impl Admin<'_> {
    pub(super) fn learn(&self, command: &LearnCommand) -> Result<(), String> {
        match command {
            LearnCommand::Show(args) => {
                let seen: Vec<Learned> = self.ask(&Request::Learned)?;
                print_or_json(args.json, &seen, |seen| print_learned(seen));
                Ok(())
            }
            LearnCommand::Propose { resource } => self.propose(resource.as_deref()),
            LearnCommand::Enforce { resource } => self.enforce(resource),
        }
    }

    fn propose(&self, only: Option<&str>) -> Result<(), String> {
        let mut seen: Vec<Learned> = self.ask(&Request::Learned)?;
        seen.retain(|row| only.is_none_or(|only| row.resource == only));
        let mut edit = Edit::begin(&self.config.paths.policy)?;
        let policy = policy_file::parse(edit.before()?, &self.config.paths.policy)
            .map_err(|error| error.to_string())?;
        let proposals = proposals(&policy, &seen);
        for proposal in &proposals {
            edit.add_learned(&proposal.resource, &proposal.who, &proposal.comment)?;
        }
        for line in unused(&policy, &seen) {
            eprintln!("{line}");
        }
        if proposals.is_empty() {
            return Err("nothing was seen that a rule is missing for; `spa-admin learn show` lists what was, and only resources with mode = \"observe\" are learned".to_owned());
        }
        let file = self.config.paths.policy.display().to_string();
        out!(
            "{}",
            difference(edit.before()?, &edit.checked()?, (&file, "proposed"))
        );
        Ok(())
    }

    fn enforce(&self, resource: &str) -> Result<(), String> {
        let mut edit = Edit::begin(&self.config.paths.policy)?;
        edit.enforce(resource)?;
        let text = edit.checked()?;
        let losses: Vec<Loss> = self
            .client
            .ask(&Request::WouldCut { text })
            .unwrap_or_default();
        self.save(
            edit,
            &format!("resource {resource} is enforced: what no rule allows is denied"),
        )?;
        print_losses(&losses, "lost");
        Ok(())
    }
}

/// A rule that is missing.
#[derive(PartialEq, Eq, Debug)]
struct Proposal {
    resource: String,
    who: Vec<String>,
    comment: String,
}

/// Gives a rule for each resource that is being learned and was reached without one.
fn proposals(policy: &Policy, seen: &[Learned]) -> Vec<Proposal> {
    let mut by_resource: BTreeMap<&str, Vec<&Learned>> = BTreeMap::new();
    for row in seen.iter().filter(|row| is_missing(policy, row)) {
        by_resource.entry(&row.resource).or_default().push(row);
    }
    let proposal = |(resource, rows): (&str, Vec<&Learned>)| {
        let people: BTreeSet<&str> = rows.iter().map(|row| row.user.as_str()).collect();
        let first = rows.iter().map(|row| row.first).min().unwrap_or(0);
        let last = rows.iter().map(|row| row.last).max().unwrap_or(0);
        let packets: u64 = rows.iter().map(|row| row.packets).sum();
        Proposal {
            resource: resource.to_owned(),
            who: smallest(policy, &people),
            comment: format!(
                "seen {} to {}, by {}, {packets} packets",
                utc(first),
                utc(last),
                people.iter().copied().collect::<Vec<_>>().join(" ")
            ),
        }
    };
    by_resource.into_iter().map(proposal).collect()
}

/// Says whether a resource is still being learned and no rule gives it to this person.
fn is_missing(policy: &Policy, row: &Learned) -> bool {
    let (Ok(person), Ok(resource)) = (Name::parse(&row.user), Name::parse(&row.resource)) else {
        return false;
    };
    let observed = policy
        .resource(&resource)
        .is_some_and(|resource| resource.mode == Mode::Observe);
    observed && policy.allows(&person, &resource).is_none()
}

/// Names these people, and nobody else, in as few words as groups allow.
fn smallest(policy: &Policy, people: &BTreeSet<&str>) -> Vec<String> {
    let mut left = people.clone();
    let mut groups: Vec<(&Name, BTreeSet<&str>)> = policy
        .groups()
        .map(|(group, members)| (group, members.iter().map(Name::as_str).collect()))
        .filter(|(_, members): &(_, BTreeSet<&str>)| {
            members.len() >= GROUP_FROM && members.is_subset(people)
        })
        .collect();
    let mut who = Vec::new();
    loop {
        let covers = |members: &BTreeSet<&str>| members.intersection(&left).count();
        // The one that stands for most; of equals the first by name.
        groups.sort_by_key(|(group, members)| (std::cmp::Reverse(covers(members)), *group));
        match groups.first() {
            Some((group, members)) if covers(members) >= GROUP_FROM => {
                who.push(format!("group:{group}"));
                left.retain(|person| !members.contains(person));
            }
            Some(_) | None => break,
        }
    }
    who.extend(left.into_iter().map(str::to_owned));
    who
}

/// Says which ports of what was reached nobody used: the resource may be wider than it need be.
fn unused(policy: &Policy, seen: &[Learned]) -> Vec<String> {
    let mut used: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for row in seen.iter().filter(|row| is_missing(policy, row)) {
        *used.entry((&row.resource, &row.ports)).or_default() += row.packets;
    }
    let unused = used.into_iter().filter(|(_, packets)| *packets == 0);
    unused
        .map(|((resource, ports), _)| {
            format!("{resource} {ports} was open and nothing went through it so far")
        })
        .collect()
}

fn print_learned(seen: &[Learned]) {
    let rows: Vec<Vec<String>> = seen
        .iter()
        .map(|row| {
            vec![
                row.user.clone(),
                format!("{}:{}", row.resource, row.ports),
                row.knocks.to_string(),
                row.packets.to_string(),
                utc(row.first),
                utc(row.last),
            ]
        })
        .collect();
    show::table(&["USER", "TO", "KNOCKS", "PACKETS", "FIRST", "LAST"], &rows);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::files;

    const POLICY: &str = r#"# ours
version = 1

[group]
eng = ["ana", "bo"]
ops = ["ana"]
all = ["ana", "bo", "cy", "dee"]

[resource]
plc = { to = "10.0.9.20", ports = ["502/tcp", "503/tcp"], mode = "observe" } # learning
cam = { to = "10.0.9.21", ports = ["554/tcp"], mode = "observe" }

[[allow]]
name = "cy-cam" # hers
who = ["cy"]
to = ["cam"]
"#;

    fn seen(user: &str, resource: &str, ports: &str, packets: u64) -> Learned {
        Learned {
            user: user.to_owned(),
            resource: resource.to_owned(),
            ports: ports.to_owned(),
            first: 1_795_633_445_000,
            last: 1_795_633_446_000,
            knocks: 1,
            packets,
        }
    }

    fn parsed() -> Policy {
        Policy::parse(POLICY).expect("sound")
    }

    #[test]
    fn a_group_stands_for_its_members_only_if_all_were_seen() {
        let policy = parsed();
        let who = |people: &[&str]| smallest(&policy, &people.iter().copied().collect());
        assert_eq!(who(&["ana", "bo"]), ["group:eng"]);
        assert_eq!(who(&["ana", "bo", "cy"]), ["group:eng", "cy"]);
        assert_eq!(who(&["ana", "bo", "cy", "dee"]), ["group:all"]);
        assert_eq!(who(&["ana"]), ["ana"], "a group of one may grow");
        assert_eq!(who(&["bo", "cy"]), ["bo", "cy"]);
    }

    #[test]
    fn a_proposal_is_the_smallest_rule_and_keeps_every_comment() {
        let policy = parsed();
        let rows = [
            seen("bo", "plc", "502/tcp", 7),
            seen("ana", "plc", "502/tcp", 5),
            seen("ana", "plc", "503/tcp", 0),
            seen("cy", "cam", "554/tcp", 3),
            seen("cy", "gone", "1/tcp", 3),
        ];
        let proposals = proposals(&policy, &rows);
        let [plc] = &proposals[..] else {
            panic!("cy has a rule, and one resource is gone: {proposals:?}")
        };
        assert_eq!(plc.who, ["group:eng"]);
        assert!(
            plc.comment.ends_with("by ana bo, 12 packets"),
            "{}",
            plc.comment
        );
        assert_eq!(
            unused(&policy, &rows),
            ["plc 503/tcp was open and nothing went through it so far"]
        );
        let dir = tempfile::tempdir().expect("a directory");
        let file: PathBuf = dir.path().join("policy.toml");
        files::create_new(&file, 0o640, POLICY.as_bytes()).expect("written");
        let mut edit = Edit::begin(&file).expect("sound");
        edit.add_learned(&plc.resource, &plc.who, &plc.comment)
            .expect("added");
        let text = edit.checked().expect("accepted");
        assert!(text.starts_with(POLICY), "only lines are added:\n{text}");
        let rule = "name = \"learned-plc\"\nwho = [\"group:eng\"]\nto = [\"plc\"]\n";
        assert!(text.ends_with(rule), "{text}");
        let after = Policy::parse(&text).expect("sound");
        let name = |text| Name::parse(text).expect("a name");
        assert!(after.allows(&name("bo"), &name("plc")).is_some());
        assert!(after.allows(&name("cy"), &name("plc")).is_none());
    }

    #[test]
    fn observing_ends_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file: PathBuf = dir.path().join("policy.toml");
        files::create_new(&file, 0o640, POLICY.as_bytes()).expect("written");
        let mut edit = Edit::begin(&file).expect("sound");
        edit.enforce("plc").expect("ended");
        let text = edit.checked().expect("accepted");
        assert!(text.contains("mode = \"enforce\" } # learning"), "{text}");
        let policy = Policy::parse(&text).expect("sound");
        let plc = policy.resource(&Name::parse("plc").expect("a name"));
        assert_eq!(plc.expect("there").mode, Mode::Enforce);
        let refusal = edit.enforce("plc").expect_err("nothing to do");
        assert!(refusal.contains("enforced already"), "{refusal}");
        assert!(
            edit.enforce("none")
                .expect_err("none")
                .contains("no resource")
        );
    }
}
