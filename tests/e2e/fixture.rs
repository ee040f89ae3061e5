//! Where most tests begin: a town whose gateway runs, and a person who is enrolled and confirmed.

use std::time::Duration;

use spa_tests::gateway::Gateway;
use spa_tests::person::Person;
use spa_tests::serve::{self, PAGE, Stream};
use spa_tests::topology::{GATEWAY, PORT, SERVER, Town, WEB, address, endpoint};
use spa_tests::wait::wait_until;

/// How long a connection that must come about is given.
pub const REACHED: Duration = Duration::from_secs(5);
/// How long a connection that must not come about is given.
pub const REFUSED: Duration = Duration::from_millis(1200);
/// A stream that has been silent for this long has ended; it speaks every 10 ms.
pub const SILENT: Duration = Duration::from_millis(500);

/// A running gateway in its town. The gateway goes before the town.
pub struct Place {
    pub gateway: Gateway,
    pub town: Town,
}

/// A town with a running gateway.
pub fn place() -> Place {
    let town = Town::build().unwrap();
    let gateway = Gateway::running(&town).unwrap();
    Place { gateway, town }
}

/// The same with ana enrolled at the client.
pub fn with_ana() -> (Place, Person) {
    let place = place();
    let ana = Person::enrolled(&place.gateway, &place.town.client, "ana").unwrap();
    (place, ana)
}

impl Place {
    /// A page of wiki comes through.
    #[track_caller]
    pub fn assert_reaches_wiki(&self, person: &Person) {
        let page = serve::fetch(person.space(), endpoint(SERVER, WEB), REACHED).unwrap();
        assert_eq!(page, PAGE);
    }

    /// Ana knocks and reaches wiki, a stranger meets silence meanwhile, and after the cut nothing is left.
    #[track_caller]
    pub fn assert_main_job(&self, ana: &mut Person) {
        ana.knock(&["wiki"]).unwrap().success().unwrap();
        self.assert_reaches_wiki(ana);
        let scanner = self.town.scanner();
        let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
        assert!(findings.is_silent(), "{:?}", findings.answers);
        self.gateway.ask(&["session", "cut", "ana"]).unwrap();
        self.assert_everything_closed();
    }

    /// No connection to wiki comes about.
    #[track_caller]
    pub fn assert_no_wiki(&self, person: &Person) {
        let wiki = endpoint(SERVER, WEB);
        assert!(serve::connect(person.space(), wiki, REFUSED).is_err());
    }

    /// An endless download of wiki, flowing.
    #[track_caller]
    pub fn stream(&self, person: &Person) -> Stream {
        let stream = Stream::watch(person.space(), endpoint(SERVER, WEB), REACHED).unwrap();
        wait_until("the stream flows", REACHED, || {
            (stream.last().0 > 100).then_some(())
        })
        .unwrap();
        stream
    }

    /// Soon no session, no element and no conntrack entry is left.
    #[track_caller]
    pub fn assert_everything_closed(&self) {
        let closed = wait_until(
            "every opening and tracked connection is gone",
            REACHED,
            || self.gateway.remains().ok()?.is_empty().then_some(()),
        );
        closed.unwrap_or_else(|error| panic!("{error}: {:?}", self.gateway.remains()));
        assert_eq!(
            self.gateway.sessions().unwrap(),
            Vec::<serde_json::Value>::new()
        );
    }
}

/// A policy in which eng may have wiki and db for this long.
pub fn policy_for(length: &str) -> String {
    spa_tests::gateway::POLICY.replace("for = \"1h\"", &format!("for = \"{length}\""))
}
