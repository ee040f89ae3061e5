//! `gateway.toml`: refused in one line that names the file, or whole and within bounds.

use std::path::Path;
use std::time::Duration;

use spa_gateway::config::Config;

/// A configuration that exists keeps every bound the rest relies on.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text, Path::new("/etc/spa/gateway.toml")) {
        Err(error) => {
            let said = error.to_string();
            assert!(
                said.contains("/etc/spa/gateway.toml"),
                "no file named: {said:?}"
            );
            assert!(!said.contains('\n'), "not one line: {said:?}");
        }
        Ok(config) => {
            assert!(config.knock_port() != 0 && config.wireguard_port() != 0);
            assert!(config.pool4().is_some() || config.pool6().is_some());
            assert!(config.paths.state.is_absolute() && config.paths.policy.is_absolute());
            let secs = Duration::from_secs;
            assert!((secs(5)..=secs(30)).contains(&config.session.door.get_ref().0));
            assert!(config.session.longest.get_ref().0 <= secs(24 * 3_600));
        }
    }
}
