//! The profiles of this device: which there are, and reading and writing one.
//!
//! Layout: `gateways/NAME/profile` (keys, written at enrolment), `gateways/NAME/memory` (written at every knock),
//! `gateways/NAME/lock`, and `gateways/NAME/posture-command` if the owner put one there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use spa_proto::CredentialId;

use crate::memory::Memory;
use crate::places::{PlaceError, Places, make_private};
use crate::private_file::{self, FileError, Lock, damaged};
use crate::profile::{Profile, Stage};

/// How long a command waits for another: a knock that gets no answer takes 8 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// All profiles.
pub struct Store {
    places: Places,
}

/// One profile, by name.
#[derive(Clone, Debug)]
pub struct Entry {
    name: String,
    directory: PathBuf,
}

/// Why no profile can be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// This device knows no gateway.
    #[error("this device is enrolled nowhere ({} is empty): ask the administrator for an invite and run `spa enroll INVITE`{}", path.display(), sudo_hint())]
    Empty {
        /// Where profiles would be.
        path: PathBuf,
    },
    /// No gateway of that name.
    #[error("no gateway {name:?} is known here; `spa list` shows {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// More than one, and none was named.
    #[error("this device is enrolled at several gateways ({known}): say which with --gateway NAME")]
    Several {
        /// Those that exist.
        known: String,
    },
    /// The directory is there, its profile is not.
    #[error("{} has no profile in it: remove the directory, or restore it", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
}

impl Store {
    /// Opens the store; it may be empty.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places }
    }

    /// All profiles, by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let path = self.places.profiles();
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(PlaceError::Directory { path, source }.into()),
        };
        let mut names: Vec<String> = listing
            .filter_map(Result::ok)
            .filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|item| item.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names.into_iter().map(|name| self.entry(name)).collect())
    }

    /// The profile a command means: the one named, or the only one, or the only one whose enrolment is complete.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn choose(&self, name: Option<&str>) -> Result<(Entry, Profile), StoreError> {
        let mut entries = self.entries()?;
        if entries.is_empty() {
            return Err(StoreError::Empty {
                path: self.places.profiles(),
            });
        }
        if let Some(name) = name {
            let known = names(&entries);
            let entry = entries
                .into_iter()
                .find(|entry| entry.name == name)
                .ok_or_else(|| StoreError::Unknown {
                    name: name.to_owned(),
                    known,
                })?;
            let profile = entry.profile()?;
            return Ok((entry, profile));
        }
        if entries.len() > 1 {
            let known = names(&entries);
            entries.retain(|entry| {
                entry
                    .profile()
                    .is_ok_and(|profile| matches!(profile.stage, Stage::Active { .. }))
            });
            if entries.len() != 1 {
                return Err(StoreError::Several { known });
            }
        }
        let entry = entries.remove(0);
        let profile = entry.profile()?;
        Ok((entry, profile))
    }

    /// The profile of a credential, if there is one.
    ///
    /// # Errors
    /// When a profile cannot be read.
    pub fn of_credential(
        &self,
        credential: CredentialId,
    ) -> Result<Option<(Entry, Profile)>, StoreError> {
        for entry in self.entries()? {
            let profile = entry.profile()?;
            if profile.credential == credential {
                return Ok(Some((entry, profile)));
            }
        }
        Ok(None)
    }

    /// Makes room for a new profile of a gateway at `host`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn create(&self, host: &str) -> Result<Entry, StoreError> {
        let wanted = directory_name(host);
        let taken: Vec<String> = self
            .entries()?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let name = if taken.contains(&wanted) {
            (2..)
                .map(|n| format!("{wanted}-{n}"))
                .find(|name| !taken.contains(name))
                .unwrap_or(wanted)
        } else {
            wanted
        };
        let entry = self.entry(name);
        make_private(&entry.directory)?;
        Ok(entry)
    }

    fn entry(&self, name: String) -> Entry {
        Entry {
            directory: self.places.profile(&name),
            name,
        }
    }
}

impl Entry {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the profile.
    ///
    /// # Errors
    /// When it is missing, open to others or damaged.
    pub fn profile(&self) -> Result<Profile, StoreError> {
        let path = self.directory.join("profile");
        let text = private_file::read(&path)?.ok_or_else(|| StoreError::Missing {
            path: self.directory.clone(),
        })?;
        Ok(Profile::parse(&text).map_err(|what| damaged(&path, what))?)
    }

    /// Writes the profile.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write_profile(&self, profile: &Profile) -> Result<(), StoreError> {
        Ok(private_file::replace(
            &self.directory.join("profile"),
            profile.to_text().text(),
        )?)
    }

    /// Reads the memory; a profile that has none yet remembers nothing.
    ///
    /// # Errors
    /// When it is open to others or damaged.
    pub fn memory(&self) -> Result<Memory, StoreError> {
        let path = self.directory.join("memory");
        match private_file::read(&path)? {
            None => Ok(Memory::default()),
            Some(text) => Ok(Memory::parse(&text).map_err(|what| damaged(&path, what))?),
        }
    }

    /// Writes the memory.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write_memory(&self, memory: &Memory) -> Result<(), StoreError> {
        Ok(private_file::replace(
            &self.directory.join("memory"),
            memory.to_text().text(),
        )?)
    }

    /// Where the owner's own posture command is, if there is one.
    #[must_use]
    pub fn posture_command(&self) -> PathBuf {
        self.directory.join("posture-command")
    }

    /// Keeps other commands away from this profile while the value lives. The agent holds it for as long as a knock of
    /// its own takes (ROAM, CLOSE): that is waited for.
    ///
    /// # Errors
    /// When another command is at work.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        Ok(private_file::lock(&self.directory.join("lock"), PATIENCE)?)
    }

    /// Forgets the profile.
    ///
    /// # Errors
    /// When the directory does not let it go.
    pub fn remove(&self) -> Result<(), StoreError> {
        for file in ["profile", "memory", "lock", "posture-command"] {
            private_file::remove(&self.directory.join(file))?;
        }
        fs::remove_dir(&self.directory).map_err(|source| {
            PlaceError::Directory {
                path: self.directory.clone(),
                source,
            }
            .into()
        })
    }
}

/// Root and a person have different homes, and a tunnel is mostly knocked for as root.
fn sudo_hint() -> &'static str {
    if rustix::process::geteuid().is_root() {
        ""
    } else {
        "; what was enrolled with sudo needs sudo here too"
    }
}

fn names(entries: &[Entry]) -> String {
    let names: Vec<&str> = entries.iter().map(Entry::name).collect();
    names.join(", ")
}

/// A directory name for a host: what could leave the directory or hide in it is replaced.
fn directory_name(host: &str) -> String {
    let mut name: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':') {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    if name.is_empty() || name.starts_with(['.', '-']) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use spa_proto::{CredentialKey, WallTime};

    use super::*;
    use crate::profile::tests::sample;
    use crate::testing::Scratch;

    fn store(home: &Path) -> Store {
        Store::new(Places::under(home))
    }

    fn enrolled(store: &Store, host: &str) -> Entry {
        let entry = store.create(host).expect("scratch is writable");
        let mut profile = sample(Stage::Active {
            key: CredentialKey::from_bytes([4; 32]),
        });
        profile.host = host.to_owned();
        entry.write_profile(&profile).expect("scratch is writable");
        entry
    }

    #[test]
    fn an_empty_store_tells_how_to_enrol() {
        let scratch = Scratch::new("store-empty");
        let error = store(scratch.path())
            .choose(None)
            .err()
            .expect("nothing there");
        assert!(error.to_string().contains("spa enroll INVITE"), "{error}");
    }

    #[test]
    fn the_only_gateway_needs_no_name_and_several_need_one() {
        let scratch = Scratch::new("store-choice");
        let store = store(scratch.path());
        enrolled(&store, "a.example");
        assert_eq!(
            store.choose(None).expect("the only one").0.name(),
            "a.example"
        );
        enrolled(&store, "b.example");
        let error = store.choose(None).err().expect("two");
        assert!(
            error.to_string().contains("a.example, b.example"),
            "{error}"
        );
        assert_eq!(
            store.choose(Some("b.example")).expect("named").0.name(),
            "b.example"
        );
        assert!(matches!(
            store.choose(Some("c")),
            Err(StoreError::Unknown { .. })
        ));
    }

    #[test]
    fn an_unfinished_enrolment_does_not_get_in_the_way() {
        let scratch = Scratch::new("store-unfinished");
        let store = store(scratch.path());
        enrolled(&store, "a.example");
        let entry = store.create("b.example").expect("scratch is writable");
        entry
            .write_profile(&sample(Stage::Invited {
                since: WallTime::from_millis(1),
            }))
            .expect("scratch is writable");
        assert_eq!(
            store.choose(None).expect("one is complete").0.name(),
            "a.example"
        );
    }

    #[test]
    fn a_second_credential_at_one_host_gets_its_own_name() {
        let scratch = Scratch::new("store-second");
        let store = store(scratch.path());
        enrolled(&store, "a.example");
        assert_eq!(
            store
                .create("a.example")
                .expect("scratch is writable")
                .name(),
            "a.example-2"
        );
    }

    #[test]
    fn keys_others_can_read_are_refused() {
        let scratch = Scratch::new("store-open");
        let store = store(scratch.path());
        let entry = enrolled(&store, "a.example");
        fs::set_permissions(
            entry.directory.join("profile"),
            Permissions::from_mode(0o644),
        )
        .expect("ours");
        let error = store.choose(None).err().expect("open to others");
        assert!(
            matches!(
                error,
                StoreError::File(FileError::OpenToOthers { mode: 0o644, .. })
            ),
            "{error}"
        );
    }

    #[test]
    fn a_host_cannot_name_a_directory_elsewhere() {
        assert_eq!(directory_name("../etc"), "_.._etc");
        assert_eq!(directory_name("GW.Example"), "gw.example");
        assert_eq!(directory_name("2001:db8::1"), "2001:db8::1");
        assert_eq!(directory_name(""), "_");
    }
}
