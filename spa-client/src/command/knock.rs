//! `spa knock`: resources named, factors asked, packets sent, tunnel up.
//!
//! Order: what must be there is checked before anything is asked; the ts is on the disk before a packet leaves; the
//! session before stays up until the gateway has granted the new one.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use spa_proto::{
    Outcome, ProofSecret, ReplySecrets, ResourceId, SecondFactor, SessionReply, Signer, Verdict,
    Wanted,
};

use crate::agent::{self, Child, Leftover, Link, Live};
use crate::ask::{self, FactorFrom};
use crate::caller::{Caller, CodeSent, KnockKey, open_request};
use crate::cli::Knock;
use crate::clock;
use crate::exchange::{Exchanged, Handshake, Knocking, Reply, TunnelSide, exchange};
use crate::failure::Failure;
use crate::places::Places;
use crate::privilege;
use crate::profile::{Holder, Stage};
use crate::progress::Progress;
use crate::say;
use crate::schedule::End;
use crate::session::{PrivateKey, Session, Stay, Tunnel};
use crate::store::Store;
use crate::wire::Wire;

/// Most resources in one knock (SPEC §4).
const MOST_RESOURCES: usize = 16;

/// The length of a TOTP step: how long one code is shown.
const CODE_SHOWN: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
/// One line; nothing is half configured.
pub fn knock(places: &Places, asked: &Knock) -> Result<(), Failure> {
    let started = Instant::now();
    let store = Store::new(places.clone());
    let (entry, profile) = store.choose(asked.gateway.as_deref())?;
    privilege::check()?;
    let mut caller = Caller::new(entry, profile)?;
    let Stage::Active { key } = &caller.profile.stage else {
        return Err(Failure::Refused(format!(
            "the enrolment at {} is not complete: run `spa enroll INVITE` again",
            caller.gateway()
        )));
    };
    let keys = caller.keys(key);
    places.make_runtime()?;
    let open = living(places, &caller)?;
    let wish = Wish::of(asked, open.as_ref())?;
    if let Some(line) = wish.said(&asked.resources) {
        eprintln!("{line}");
    }
    let addresses = caller.resolve()?;

    let (proof, factor) = factors(&caller, asked)?;
    let sent = CodeSent::of(&factor);
    let asked_for = started.elapsed();
    let ts = caller.begin()?;
    let (request, private_key) =
        open_request(ts, asked.length.unwrap_or(0), factor, wish.wanted())?;
    let choice = if asked.kid0 {
        KnockKey::LongLived
    } else {
        KnockKey::Newest
    };
    let knocking = Knocking::new(
        &keys,
        caller.knock_key(choice),
        &request,
        Signer::Password(&proof),
    )?;
    let mut wire = Wire::open(addresses.clone())?;
    let mut progress = Progress::new();
    progress.phase(format!("Knocking at {}", caller.gateway()));
    let mut guest = Guest {
        places,
        interface: caller.profile.interface(),
        profile: caller.entry.name().to_owned(),
        wish: &wish,
        private_key,
        stay: if asked.foreground {
            Stay::Foreground
        } else {
            Stay::Background
        },
        child: None,
    };
    let exchanged = exchange(&mut wire, &knocking, Some(&mut guest), &mut progress)?;
    // q goes with the transaction (SPEC §3.2).
    drop(knocking);
    drop(proof);
    progress.clear();

    let Exchanged { end, reply, .. } = &exchanged;
    let Some(reply) = reply else {
        return Err(Failure::NoAnswer(say::silence(&caller.gateway())));
    };
    for (name, verdict) in verdicts(&reply.payload.outcome, &wish) {
        caller
            .memory
            .keep_verdict(&name, verdict.code(), reply.wall);
        eprintln!("{name}: {}", say::verdict(verdict));
    }
    caller.learn(reply, &addresses, sent)?;
    match (&reply.payload.outcome, end, guest.child) {
        (Outcome::Session(session), End::Done, Some(child)) => stay(
            child,
            session,
            reply,
            &exchanged,
            asked_for,
            asked.foreground,
            caller,
        ),
        (Outcome::Session(_), _, _) => Err(Failure::Refused(format!(
            "the gateway granted the knock, and its WireGuard did not answer at {}: something between here and there drops UDP packets that are not knocks",
            reply.from
        ))),
        (Outcome::Refused { why, reason, .. }, _, _) => {
            Err(Failure::Refused(say::refused(*why, reason.as_deref())))
        }
        (Outcome::Closed { .. } | Outcome::Enrolled(_), _, _) => Err(Failure::Refused(
            "the gateway answered something that does not belong to a knock".to_owned(),
        )),
    }
}

/// The session that is open now; what a dead agent left is removed.
fn living(places: &Places, caller: &Caller) -> Result<Option<Live>, Failure> {
    let profile = caller.entry.name();
    if let Some(link) = Link::connect(places, profile)? {
        return Ok(Some(link.status()?));
    }
    if agent::clean(places, profile, &caller.profile.interface())? == Leftover::Interface {
        eprintln!("Removed the interface of an earlier session whose agent had died.");
    }
    Ok(None)
}

/// What is asked for, together with what is open.
struct Wish {
    names: Vec<String>,
    all: bool,
    /// What is open already and asked for again.
    kept: Vec<String>,
}

impl Wish {
    fn of(asked: &Knock, open: Option<&Live>) -> Result<Self, Failure> {
        let mut names: Vec<String> = Vec::new();
        for name in &asked.resources {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut wish = Self {
            names,
            all: asked.all,
            kept: Vec::new(),
        };
        if let Some(open) = open.filter(|_| !asked.only) {
            wish.all |= open.all;
            wish.kept = open
                .granted
                .iter()
                .filter(|name| !wish.names.contains(name))
                .cloned()
                .collect();
        }
        if wish.all {
            wish.kept.extend(std::mem::take(&mut wish.names));
        } else {
            wish.names.extend(wish.kept.iter().cloned());
        }
        if wish.names.len() > MOST_RESOURCES {
            return Err(Failure::Usage(format!(
                "a knock names at most {MOST_RESOURCES} resources, what is open included: use --only or --all"
            )));
        }
        Ok(wish)
    }

    /// Says that more is asked for than was typed.
    fn said(&self, typed: &[String]) -> Option<String> {
        match (self.kept.is_empty(), self.all, typed.is_empty()) {
            (true, _, _) | (false, true, true) => None,
            (false, true, false) => Some(
                "Everything allowed is open already and is asked for again; --only replaces it."
                    .to_owned(),
            ),
            (false, false, _) => Some(format!(
                "{} is open: asking for {} (--only replaces it).",
                self.kept.join(", "),
                self.names.join(", ")
            )),
        }
    }

    fn wanted(&self) -> Wanted {
        if self.all {
            Wanted::All
        } else {
            Wanted::Resources(self.names.iter().map(|name| ResourceId::of(name)).collect())
        }
    }

    fn known(&self) -> Vec<String> {
        [self.names.clone(), self.kept.clone()].concat()
    }
}

/// Asks password and code, and makes the proof key while the code is typed.
fn factors(caller: &Caller, asked: &Knock) -> Result<(ProofSecret, SecondFactor), Failure> {
    let source = match caller.profile.holder {
        Holder::Machine => FactorFrom::Machine,
        Holder::Person => FactorFrom::options(
            asked.code.as_deref(),
            asked.recovery.as_deref(),
            asked.code_command.as_deref(),
        ),
    };
    let password = match caller.profile.holder {
        Holder::Machine => None,
        Holder::Person => Some(ask::password(
            asked.password_file.as_deref(),
            &format!("Password for {}: ", caller.gateway()),
        )?),
    };
    thread::scope(|scope| {
        let proof = scope.spawn(|| {
            caller
                .profile
                .proof(password.as_ref().map(|password| password.as_str()))
        });
        if matches!(source, FactorFrom::Terminal) {
            warn_of_used_code(caller);
        }
        let factor = source.have(None);
        let proof = proof
            .join()
            .unwrap_or(Err(spa_proto::PasswordError::Memory))
            .map_err(ask::AskError::Password)?;
        Ok((proof, factor?))
    })
}

/// One code opens one door (SPEC §10): a person who knocks twice in half a minute should know before, not after silence.
fn warn_of_used_code(caller: &Caller) {
    let Some(at) = caller.memory.code_sent() else {
        return;
    };
    let age = clock::wall().since(at);
    if age < CODE_SHOWN {
        eprintln!(
            "A code was used {} ago and opens nothing any more: wait until the phone shows the next.",
            say::length(age)
        );
    }
}

/// The verdicts by name: of what was asked for in its order, of `--all` what the gateway says.
fn verdicts(outcome: &Outcome, wish: &Wish) -> Vec<(String, Verdict)> {
    let given = match outcome {
        Outcome::Session(session) => &session.verdicts,
        Outcome::Refused { verdicts, .. } | Outcome::Closed { verdicts, .. } => verdicts,
        Outcome::Enrolled(_) => return Vec::new(),
    };
    let known = wish.known();
    given
        .iter()
        .map(|(id, verdict)| (say::name_of(*id, &known), *verdict))
        .collect()
}

/// WireGuard's side of the knock: an agent raises the tunnel, and holds it afterwards.
struct Guest<'a> {
    places: &'a Places,
    profile: String,
    interface: String,
    wish: &'a Wish,
    private_key: PrivateKey,
    stay: Stay,
    child: Option<Child>,
}

impl TunnelSide for Guest<'_> {
    fn raise(&mut self, reply: &Reply, port: u16) -> Result<(), Failure> {
        let Outcome::Session(granted) = &reply.payload.outcome else {
            return Err(Failure::Refused(
                "there is no session to raise a tunnel for".to_owned(),
            ));
        };
        // The gateway has one session per credential: the one before is over there already.
        if let Some(before) = Link::connect(self.places, &self.profile)? {
            before.give_way()?;
        }
        let session = self.session(reply, granted, &reply.secrets, port);
        self.child = Some(Child::start(self.places, &session)?);
        Ok(())
    }

    fn wait_handshake(&mut self, patience: Duration) -> Result<Handshake, Failure> {
        match &mut self.child {
            Some(child) => Ok(child.wait_handshake(patience)?),
            None => Ok(Handshake::NotYet),
        }
    }

    fn lower(&mut self) -> Result<(), Failure> {
        match self.child.take() {
            Some(child) => Ok(child.end()?),
            None => Ok(()),
        }
    }
}

impl Guest<'_> {
    fn session(
        &self,
        reply: &Reply,
        granted: &SessionReply,
        secrets: &ReplySecrets,
        port: u16,
    ) -> Session {
        let outcome = &reply.payload.outcome;
        let left = granted.not_after.since(reply.payload.gateway_time);
        let addresses = [
            granted.tunnel4.map(IpAddr::V4),
            granted.tunnel6.map(IpAddr::V6),
        ];
        Session {
            profile: self.profile.clone(),
            interface: self.interface.clone(),
            gateway: reply.from,
            granted: verdicts(outcome, self.wish)
                .into_iter()
                .filter(|(_, verdict)| verdict.is_granted())
                .map(|(name, _)| name)
                .collect(),
            all: self.wish.all,
            since: reply.wall,
            not_after: reply.wall.saturating_add(left),
            deadline: reply.boot + left,
            id: granted.id,
            key: secrets.k_sess.duplicate(),
            tunnel: Tunnel {
                private_key: PrivateKey::from_bytes(*self.private_key.expose()),
                listen_port: port,
                peer: granted.wg_public,
                psk: secrets.wg_psk.duplicate(),
                endpoint: granted.endpoint.unwrap_or(reply.from),
                addresses: addresses.into_iter().flatten().collect(),
                gateway: granted.gateway_tunnel,
                control_port: granted.control_port,
                mtu: granted.mtu,
                keepalive: granted.keepalive,
                routes: granted
                    .routes
                    .iter()
                    .map(|route| (route.address(), route.prefix()))
                    .collect(),
            },
            stay: self.stay,
        }
    }
}

/// Says what is open, and leaves the agent to hold it.
fn stay(
    mut child: Child,
    session: &SessionReply,
    reply: &Reply,
    exchanged: &Exchanged,
    asked_for: Duration,
    foreground: bool,
    caller: Caller,
) -> Result<(), Failure> {
    child.stay()?;
    for warning in child.warnings() {
        eprintln!("Note: {warning}");
    }
    if let Some(reason) = &session.reason {
        eprintln!("The gateway says: {}", say::printable(reason));
    }
    if let Some(dns) = session.dns {
        eprintln!(
            "Names inside are answered by {dns}; spa leaves this machine's resolver as it is."
        );
    }
    let left = session.not_after.since(reply.payload.gateway_time);
    let until = clock::local_text(reply.wall.saturating_add(left));
    println!(
        "Open until {until} ({}), WireGuard {} on {}.",
        say::length(left),
        child.backend(),
        caller.profile.interface()
    );
    eprintln!("{}", timing(exchanged, asked_for));
    if !foreground {
        return Ok(());
    }
    // Other commands may work with the profile from here on, the agent's CLOSE too.
    drop(caller);
    let signals = agent::ending_signals().map_err(agent::AgentError::Start)?;
    eprintln!("Ctrl-C closes it.");
    let ended = child.accompany(&signals, || eprintln!("Closing."))?;
    println!("The session {ended}.");
    Ok(())
}

fn timing(exchanged: &Exchanged, asked_for: Duration) -> String {
    let ms = |time: Option<Duration>| {
        time.map_or_else(
            || "-".to_owned(),
            |time| format!("{:.1} ms", time.as_secs_f64() * 1e3),
        )
    };
    format!(
        "Factors {}, reply after {}, tunnel after {}, {}.",
        ms(Some(asked_for)),
        ms(exchanged.reply_after),
        ms(exchanged.handshake_after),
        match exchanged.packets {
            1 => "1 packet".to_owned(),
            more => format!("{more} packets"),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(granted: &[&str], all: bool) -> Live {
        Live {
            granted: granted.iter().map(|name| (*name).to_owned()).collect(),
            all,
            interface: String::new(),
            backend: String::new(),
            gateway: String::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            not_after: 0,
            left: Duration::ZERO,
            handshake_age: None,
            received: 0,
            sent: 0,
        }
    }

    fn asked(args: &[&str]) -> Knock {
        use clap::Parser;
        let args = [&["spa", "knock"], args].concat();
        match crate::cli::Cli::try_parse_from(args)
            .expect("a command line of the test")
            .command
        {
            crate::cli::Command::Knock(knock) => knock,
            _ => unreachable!("a knock was asked"),
        }
    }

    #[test]
    fn a_second_knock_asks_for_what_is_open_too_and_says_so() {
        let typed = asked(&["db"]);
        let wish = Wish::of(&typed, Some(&live(&["wiki"], false))).expect("two names");
        assert_eq!(wish.names, ["db", "wiki"]);
        assert_eq!(
            wish.said(&typed.resources).as_deref(),
            Some("wiki is open: asking for db, wiki (--only replaces it).")
        );
    }

    #[test]
    fn only_replaces_what_is_open() {
        let wish =
            Wish::of(&asked(&["db", "--only"]), Some(&live(&["wiki"], false))).expect("one name");
        assert_eq!(wish.names, ["db"]);
        assert_eq!(wish.said(&["db".to_owned()]), None);
    }

    #[test]
    fn the_same_name_again_says_nothing() {
        let wish =
            Wish::of(&asked(&["wiki", "wiki"]), Some(&live(&["wiki"], false))).expect("one name");
        assert_eq!(wish.names, ["wiki"]);
        assert_eq!(wish.said(&["wiki".to_owned()]), None);
    }

    #[test]
    fn everything_stays_everything() {
        let wish = Wish::of(&asked(&["db"]), Some(&live(&["wiki"], true))).expect("all");
        assert_eq!(wish.wanted(), Wanted::All);
        assert!(wish.said(&["db".to_owned()]).is_some());
        let wish = Wish::of(&asked(&["--all"]), Some(&live(&["wiki"], false))).expect("all");
        assert_eq!(wish.wanted(), Wanted::All);
        assert_eq!(wish.said(&[]), None);
    }

    #[test]
    fn more_than_sixteen_is_a_usage_error() {
        let names: Vec<String> = (0..17).map(|n| format!("r{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(matches!(
            Wish::of(&asked(&names), None),
            Err(Failure::Usage(_))
        ));
        let open = live(&names[..16], false);
        assert!(matches!(
            Wish::of(&asked(&["x"]), Some(&open)),
            Err(Failure::Usage(_))
        ));
    }
}
