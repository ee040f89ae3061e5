//! The whole story on real packets between real programs, each step checked: `make demo`.
//!
//! Every step is a promise; the first one that does not hold ends the story with exit code 1.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::must;
use spa_tests::packet::Packet;
use spa_tests::person::{self, Enrolled, PASSWORD, Person};
use spa_tests::phone;
use spa_tests::sensor::{Sensor, marked};
use spa_tests::serve::{self, PAGE, Stream};
use spa_tests::story::{Broken, Story};
use spa_tests::topology::{
    DATABASE, GATEWAY, GATEWAY6, HOME, PORT, SERVER, Town, WEB, address, endpoint,
};
use spa_tests::wait::wait_until;
use spa_tests::wire::{self, Direction, Wire};

/// How long the first session is: long enough for every attempt against it, short enough to watch its end.
const SESSION: Duration = Duration::from_secs(45);
/// How long a connection that must not come about is given.
const REFUSED: Duration = Duration::from_millis(1200);
/// A stream that has been silent for this long has ended; it speaks every 10 ms.
const SILENT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if let Err(error) = spa_tests::net::privileged() {
        eprintln!("demo: {error}");
        return ExitCode::FAILURE;
    }
    let logs = PathBuf::from("target/demo");
    // Each run tells its own story.
    let _none_yet = fs::remove_dir_all(&logs);
    let story = Story::begin(&logs);
    match tell(&story, logs.clone()) {
        Ok(()) => {
            story.end();
            ExitCode::SUCCESS
        }
        Err(Broken) => ExitCode::FAILURE,
    }
}

fn tell(story: &Story, logs: PathBuf) -> Result<(), Broken> {
    let folder = std::env::temp_dir().join(format!("e2edemo{}", std::process::id()));
    let town = story.step(
        "a client and a neighbour behind one NAT, a stranger, a gateway, a LAN",
        || Ok((Town::build_in(folder.clone(), logs)?, String::new())),
    )?;
    let told = chapters(story, &town);
    drop(town);
    let _left_for_the_temporary_directory = fs::remove_dir_all(folder);
    told
}

fn chapters(story: &Story, town: &Town) -> Result<(), Broken> {
    let mut gateway = set_up(story, town)?;
    silence(
        story,
        town,
        "every TCP and UDP port is silent, the knock port like the others",
    )?;
    let mut ana = enrol(story, town, &gateway)?;
    silence(story, town, "still silent after an enrolment")?;
    let open = knock(story, town, &gateway, &mut ana)?;
    only_what_was_asked(story, town, &open)?;
    thieves(story, town, &gateway, &ana, &open)?;
    the_end(story, town, &gateway, open)?;
    cut(story, town, &gateway, &mut ana)?;
    story.step(
        "the gateway stops and leaves nothing behind that is open",
        || {
            gateway.stop()?.success()?;
            nothing_open(&gateway)?;
            Ok(((), String::new()))
        },
    )
}

/// A session that is open, and what the wire saw of it.
struct Open {
    /// The knock as it arrived at the gateway.
    captured: Packet,
    /// An endless download through the tunnel.
    stream: Stream,
    /// When the session has to end, by the gateway's own words.
    ends: Instant,
    /// What gets past the gateway's table.
    sensor: Sensor,
}

fn set_up(story: &Story, town: &Town) -> Result<Gateway, Broken> {
    story.step("spa-admin init, spa-gateway run", || {
        let mut gateway = Gateway::init(town)?;
        gateway.write_policy(&format!(
            "version = 1\n\n[group]\neng = [\"ana\"]\n\n[resource]\n\
             wiki = {{ to = \"{SERVER}\", ports = [\"{WEB}/tcp\"] }}\n\n\
             [[allow]]\nname = \"eng-wiki\"\nwho = [\"group:eng\"]\nto = [\"wiki\"]\nfor = \"{}s\"\n",
            SESSION.as_secs()
        ))?;
        gateway.start()?;
        let status = gateway.ask_json(&["status"])?;
        let backend = match status["wireguard"].as_str() {
            Some("kernel") => "WireGuard in the kernel",
            Some("embedded") => "embedded WireGuard, as this kernel has none",
            _ => anyhow::bail!("it does not say which WireGuard it uses: {status}"),
        };
        Ok((gateway, backend.to_owned()))
    })
}

fn silence(story: &Story, town: &Town, expected: &str) -> Result<(), Broken> {
    story.step(expected, || {
        let leaving = town.tap_leaving()?;
        let scans = [
            town.scanner().every_port(address(GATEWAY))?,
            town.scanner().oddities(address(GATEWAY), PORT)?,
            town.scanner6().oddities(address(GATEWAY6), PORT)?,
        ];
        let mut probes = 0;
        for findings in scans {
            must!(findings.is_silent(), "answers: {:?}", findings.answers);
            probes += findings.probes;
        }
        let left = leaving.finish();
        let left: Vec<_> = left
            .iter()
            .filter(|seen| !seen.packet.is_link_housekeeping())
            .collect();
        must!(
            left.is_empty(),
            "the gateway sent {} packets, first {:?}",
            left.len(),
            left[0]
        );
        Ok(((), format!("{probes} probes, 0 answers")))
    })
}

fn enrol(story: &Story, town: &Town, gateway: &Gateway) -> Result<Person, Broken> {
    let Enrolled { person, words, .. } =
        story.step("enrolled in band, no port opened for it", || {
            gateway.ask(&["user", "add", "ana"])?;
            let invite = person::invite(gateway, "ana", &[])?;
            let leaving = town.tap_leaving()?;
            let enrolled = Person::new(gateway, &town.client, "ana", "laptop")?.enroll(&invite)?;
            let replies = leaving.count(Packet::is_knock_sized);
            must!(replies >= 2, "{replies} replies");
            Ok((enrolled, format!("{replies} replies of 512 bytes")))
        })?;
    story.step("the same four words on both sides, confirmed", || {
        let theirs = gateway.words(&person.credential())?;
        must!(
            theirs == words.join(" "),
            "here {words:?}, there {theirs:?}"
        );
        gateway.ask(&["device", "confirm", &person.credential()])?;
        Ok(((), words.join(" ")))
    })?;
    Ok(person)
}

fn knock(story: &Story, town: &Town, gateway: &Gateway, ana: &mut Person) -> Result<Open, Broken> {
    let wiki = endpoint(SERVER, WEB);
    let (captured, ends) =
        story.step("one knock for `wiki` opens the door and the tunnel", || {
            let arriving = town.tap_arriving()?;
            let knocked = ana.knock(&["wiki"])?.success().context("spa knock")?;
            let first = arriving.wait_for("the knock", REFUSED, Packet::is_knock_sized)?;
            let ends = deadline(gateway)?;
            Ok((
                (first.packet, ends),
                format!("{} ms with Argon2id", knocked.took.as_millis()),
            ))
        })?;
    story.step("a page of wiki comes through the tunnel", || {
        let page = serve::fetch(&town.client, wiki, REFUSED)?;
        must!(page == PAGE, "another page: {page:?}");
        Ok(((), format!("{:?}", page.trim())))
    })?;
    let (stream, sensor) = story.step(
        "a download that would never end by itself runs through it",
        || {
            let stream = Stream::watch(&town.client, wiki, REFUSED)?;
            wait_until("the stream flows", REFUSED, || {
                (stream.last().0 > 100).then_some(())
            })?;
            Ok(((stream, Sensor::place(&town.gateway)?), String::new()))
        },
    )?;
    Ok(Open {
        captured,
        stream,
        ends,
        sensor,
    })
}

fn only_what_was_asked(story: &Story, town: &Town, open: &Open) -> Result<(), Broken> {
    story.step("the database on the same machine is refused", || {
        let reached = serve::connect(&town.client, endpoint(SERVER, DATABASE), REFUSED);
        must!(reached.is_err(), "connected");
        must!(
            town.database.accepted() == 0,
            "the database saw a connection"
        );
        Ok(((), String::new()))
    })?;
    story.step(
        "the gateway's own ports are refused, inside and outside the tunnel",
        || {
            let own = serve::web(&town.gateway, endpoint("::", 22))?;
            for target in ["10.200.0.1", GATEWAY, "10.0.5.1"] {
                let reached = serve::connect(&town.client, endpoint(target, 22), REFUSED / 2);
                must!(reached.is_err(), "{target} port 22 is reachable");
            }
            must!(
                own.accepted() == 0,
                "the gateway's service saw a connection"
            );
            Ok(((), String::new()))
        },
    )?;
    story.step("the neighbour behind the same NAT gets nothing", || {
        neighbour_gets_nothing(town, open)?;
        Ok(((), String::new()))
    })
}

/// The neighbour's packets leave with the same address as the client's. They end at the gateway's table, at every port of it,
/// and so does what a helpful router passes on to the LAN behind it.
fn neighbour_gets_nothing(town: &Town, open: &Open) -> anyhow::Result<()> {
    town.router
        .ip(&format!("route replace 10.0.5.0/24 via {GATEWAY}"))?;
    let arriving = town.tap_arriving()?;
    let before = town.web.accepted();
    let own = endpoint("192.168.8.10", 40_000);
    let attempts: Vec<Packet> = [
        endpoint(GATEWAY, PORT),
        endpoint(GATEWAY, 22),
        endpoint(SERVER, WEB),
    ]
    .into_iter()
    .map(|target| marked(own, target))
    .collect();
    wire::send(&town.neighbour, &attempts)?;
    wait_until("the neighbour's packets arrive", REFUSED, || {
        let marked = |packet: &Packet| packet.payload.len() == spa_tests::sensor::MARK;
        (arriving.count(marked) == attempts.len()).then_some(())
    })?;
    must!(
        open.sensor.received()? == 0,
        "a packet got past the input chain"
    );
    must!(
        open.sensor.forwarded()? == 0,
        "a packet got past the forward chain"
    );
    let reached = serve::connect(&town.neighbour, endpoint(SERVER, WEB), REFUSED / 2);
    must!(reached.is_err(), "it reaches wiki");
    must!(town.web.accepted() == before, "wiki saw a connection");
    let seen = arriving.so_far();
    must!(
        seen.iter()
            .any(|seen| seen.packet.source.ip() == address(HOME)),
        "its packets do not come from the shared address"
    );
    Ok(())
}

fn thieves(
    story: &Story,
    town: &Town,
    gateway: &Gateway,
    ana: &Person,
    open: &Open,
) -> Result<(), Broken> {
    story.step("the captured knock, sent again by both: nothing", || {
        let leaving = replies(town)?;
        let before = who(gateway)?;
        for (space, own) in [
            (&town.client, "192.168.7.10"),
            (&town.neighbour, "192.168.8.10"),
        ] {
            let again = Packet::udp(
                endpoint(own, 47_000),
                endpoint(GATEWAY, PORT),
                &open.captured.payload,
            );
            wire::send(space, &[again])?;
        }
        must!(
            leaving.watch_for(SILENT, Packet::is_knock_sized).is_none(),
            "a reply"
        );
        must!(who(gateway)? == before, "the sessions changed");
        Ok(((), String::new()))
    })?;
    // The device is stolen and stands next door: everything but what the person knows and holds.
    let attempts: [(&str, &str, Code); 3] = [
        (
            "the right device and code with a wrong password: nothing",
            "incorrect horse",
            Code::Fresh,
        ),
        (
            "the right device and password with a wrong code: nothing",
            PASSWORD,
            Code::Wrong,
        ),
        (
            "the right device and password with a used code: nothing",
            PASSWORD,
            Code::Used,
        ),
    ];
    for (number, (expected, password, code)) in attempts.into_iter().enumerate() {
        story.step(expected, || {
            let mut thief = ana.stolen_copy(&town.neighbour, &format!("stolen{number}"))?;
            let code = match code {
                Code::Fresh => thief.fresh_code()?,
                Code::Wrong => thief.code_of(phone::step_now() + 1000)?,
                Code::Used => thief.used_code()?,
            };
            let leaving = replies(town)?;
            let knocked = thief.knock_with(&["wiki"], password, &code)?;
            knocked.refusal(3, &["no answer"])?;
            must!(leaving.count(Packet::is_knock_sized) == 0, "a reply");
            let (_, last) = open.stream.last();
            must!(
                last.elapsed() < SILENT,
                "the session of the right person suffered"
            );
            Ok(((), "exit code 3, 0 packets back".to_owned()))
        })?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Code {
    Fresh,
    Wrong,
    Used,
}

fn the_end(story: &Story, town: &Town, gateway: &Gateway, open: Open) -> Result<(), Broken> {
    let ends = open.ends;
    story.step("the session ends at its deadline, under traffic", || {
        let limit = ends.saturating_duration_since(Instant::now()) + Duration::from_secs(3);
        let stopped = open
            .stream
            .stopped(SILENT, limit)
            .context("the stream still flows 3 s after the deadline")?;
        let late = signed_millis(stopped, ends);
        must!(late >= -1500, "it ended {} ms too early", -late);
        must!(late <= 100, "it ended {late} ms too late");
        Ok(((), format!("last byte {late:+} ms")))
    })?;
    story.step(
        "everything is closed: no session, no element, no conntrack entry",
        || {
            wait_until("the session is gone", REFUSED, || {
                gateway.sessions().ok()?.is_empty().then_some(())
            })?;
            nothing_open(gateway)?;
            let reached = serve::connect(&town.client, endpoint(SERVER, WEB), REFUSED / 2);
            must!(reached.is_err(), "wiki is still reachable");
            Ok(((), String::new()))
        },
    )
}

fn cut(story: &Story, town: &Town, gateway: &Gateway, ana: &mut Person) -> Result<(), Broken> {
    let stream = story.step("a second knock, for `session cut`", || {
        ana.knock(&["wiki"])?.success().context("spa knock")?;
        let stream = Stream::watch(&town.client, endpoint(SERVER, WEB), REFUSED)?;
        wait_until("the stream flows", REFUSED, || {
            (stream.last().0 > 100).then_some(())
        })?;
        Ok((stream, String::new()))
    })?;
    story.step("`spa-admin session cut ana` ends it at once", || {
        let through = Wire::tap(&town.gateway, "lan0", Direction::Outgoing)?;
        let begun = Instant::now();
        let said = gateway.ask(&["session", "cut", "ana"])?;
        stream
            .stopped(SILENT, REFUSED * 2)
            .context("the stream still flows")?;
        // The last packet of the session that the gateway passed on to the LAN.
        let last = through
            .finish()
            .last()
            .map_or(0, |seen| signed_millis(seen.at, begun).max(0));
        nothing_open(gateway)?;
        Ok((
            (),
            format!(
                "{}; last packet {last} ms after the command began",
                said.trim()
            ),
        ))
    })
}

/// Which sessions there are, from where, until when; their counters move on.
fn who(gateway: &Gateway) -> anyhow::Result<Vec<String>> {
    let sessions = gateway.sessions()?;
    let of = |session: &serde_json::Value| {
        ["session", "source", "not_after"].map(|field| session[field].to_string())
    };
    Ok(sessions
        .iter()
        .map(|session| of(session).join(" "))
        .collect())
}

/// Replies that leave the gateway from now on; WireGuard's own packets of the live session are no replies.
fn replies(town: &Town) -> anyhow::Result<Wire> {
    town.tap_leaving()
}

fn nothing_open(gateway: &Gateway) -> anyhow::Result<()> {
    let open = gateway.remains()?;
    must!(open.is_empty(), "still there: {open:?}");
    Ok(())
}

/// When the only session ends.
fn deadline(gateway: &Gateway) -> anyhow::Result<Instant> {
    let sessions = gateway.sessions()?;
    let [session] = sessions.as_slice() else {
        anyhow::bail!("{} sessions: {sessions:?}", sessions.len());
    };
    let not_after = session["not_after"].as_u64().context("not_after")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let left = Duration::from_millis(not_after).saturating_sub(now);
    must!(
        left <= SESSION,
        "it lasts {left:?}, longer than policy allows"
    );
    Ok(Instant::now() + left)
}

fn signed_millis(at: Instant, reference: Instant) -> i128 {
    let millis = |span: Duration| i128::try_from(span.as_millis()).expect("the demo is short");
    match at.checked_duration_since(reference) {
        Some(after) => millis(after),
        None => -millis(reference.duration_since(at)),
    }
}
