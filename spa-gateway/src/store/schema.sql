-- Times are Unix milliseconds; sealed columns hold nonce, ciphertext and tag.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE knock_key (
    kid       INTEGER PRIMARY KEY,
    secret    BLOB NOT NULL, -- sealed
    made      INTEGER NOT NULL,
    not_after INTEGER
) STRICT;

CREATE TABLE person (
    name        TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    standing    TEXT NOT NULL,
    totp        BLOB, -- sealed
    totp_digits INTEGER,
    totp_period INTEGER,
    totp_proven INTEGER NOT NULL,
    last_step   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE recovery (
    person TEXT NOT NULL,
    hash   BLOB NOT NULL,
    PRIMARY KEY (person, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE credential (
    id           BLOB PRIMARY KEY,
    person       TEXT NOT NULL,
    label        TEXT NOT NULL,
    proof        BLOB,
    standing     TEXT NOT NULL,
    expires      INTEGER,
    confirmed    INTEGER NOT NULL,
    enrolled     INTEGER,
    invite_until INTEGER,
    last_ts      INTEGER NOT NULL,
    failures     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credential_key (
    credential BLOB NOT NULL,
    number     INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    key        BLOB NOT NULL, -- sealed
    PRIMARY KEY (credential, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    id         BLOB PRIMARY KEY,
    credential BLOB NOT NULL,
    key        BLOB NOT NULL, -- sealed
    wg_key     BLOB NOT NULL,
    tunnel4    TEXT,
    tunnel6    TEXT,
    resources  TEXT NOT NULL, -- names parted by spaces, which no name has
    source     TEXT NOT NULL,
    signals    TEXT, -- network, hour, failures; see risk.rs
    opened     INTEGER NOT NULL,
    not_after  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- At most one row for each pair of addresses, so the pool bounds it.
CREATE TABLE resting (
    tunnel4 TEXT,
    tunnel6 TEXT,
    until   INTEGER NOT NULL
) STRICT;
-- Every session that ends looks for the row of its pair.
CREATE INDEX resting_pair ON resting (tunnel4, tunnel6);

CREATE TABLE lock (
    target TEXT PRIMARY KEY, -- as `spa-admin lock` takes it
    until  INTEGER,
    why    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Just-in-time grants and approvals share one row of numbers.
CREATE TABLE jit_grant (
    id       INTEGER PRIMARY KEY,
    person   TEXT NOT NULL,
    resource TEXT NOT NULL,
    until    INTEGER NOT NULL,
    why      TEXT NOT NULL
) STRICT;

CREATE TABLE approval (
    id       INTEGER PRIMARY KEY,
    person   TEXT NOT NULL,
    resource TEXT NOT NULL,
    rule     TEXT NOT NULL,
    by       TEXT NOT NULL,
    until    INTEGER NOT NULL
) STRICT;

CREATE TABLE waiting (
    id       INTEGER PRIMARY KEY,
    person   TEXT NOT NULL,
    resource TEXT NOT NULL,
    rule     TEXT NOT NULL,
    since    INTEGER NOT NULL
) STRICT;

-- What is usual for a person. The core says which network is forgotten for a new one.
CREATE TABLE habit_network (
    person  TEXT NOT NULL,
    network TEXT NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (person, network)
) STRICT, WITHOUT ROWID;

CREATE TABLE habit_hour (
    person TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    knocks INTEGER NOT NULL,
    PRIMARY KEY (person, hour)
) STRICT, WITHOUT ROWID;

-- What observe mode let through; bounded by the core.
CREATE TABLE learned (
    person   TEXT NOT NULL,
    resource TEXT NOT NULL,
    ports    TEXT NOT NULL, -- as a policy writes them
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    knocks   INTEGER NOT NULL,
    packets  INTEGER NOT NULL,
    PRIMARY KEY (person, resource, ports)
) STRICT, WITHOUT ROWID;

-- How much a person did with a resource, by the day; bounded by the core.
CREATE TABLE usual (
    person           TEXT NOT NULL,
    resource         TEXT NOT NULL,
    day              INTEGER NOT NULL, -- since 1970, UTC
    bytes            INTEGER NOT NULL, -- on that day
    connections      INTEGER NOT NULL,
    most_bytes       INTEGER NOT NULL, -- of the days before
    most_connections INTEGER NOT NULL,
    days             INTEGER NOT NULL,
    PRIMARY KEY (person, resource)
) STRICT, WITHOUT ROWID;

-- What devices said of themselves.
CREATE TABLE facts (
    credential BLOB PRIMARY KEY,
    facts      TEXT NOT NULL -- a line for each
) STRICT, WITHOUT ROWID;

-- Every policy that was in force, newest last; the oldest leave (versions.rs).
CREATE TABLE policy_version (
    serial  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    by      TEXT NOT NULL,
    why     TEXT NOT NULL,
    added   INTEGER NOT NULL, -- lines
    removed INTEGER NOT NULL,
    text    TEXT NOT NULL
) STRICT;

CREATE TABLE access (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    user     TEXT,
    resource TEXT,
    denied   INTEGER NOT NULL,
    line     TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    user   TEXT,
    denied INTEGER NOT NULL,
    line   TEXT NOT NULL
) STRICT;
