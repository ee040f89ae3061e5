use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_configuration_may_stand_before_or_after() {
    for line in [
        "spa-admin --config /x status --json",
        "spa-admin status --json --config /x",
    ] {
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        assert_eq!(cli.config, PathBuf::from("/x"));
        assert!(matches!(
            cli.command,
            Command::Status(ListArgs { json: true })
        ));
    }
}

#[test]
fn unattended_init_takes_every_flag() {
    let line = "spa-admin init --interface eth0 --public 198.51.100.10:51820 --pool 10.200.0.0/16 --pool fd5a:1::/64 --yes";
    let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
    let Command::Init(args) = cli.command else {
        panic!("init")
    };
    assert_eq!(args.pools.len(), 2);
    assert!(args.yes);
}

#[test]
fn a_grant_says_how_long_and_why() {
    let parsed = |line: &str| Cli::try_parse_from(line.split(' '));
    let full = "spa-admin grant ana wiki --for 4h --why incident";
    assert!(matches!(
        parsed(full).expect("parses").command,
        Command::Grant(GrantArgs { other: None, .. })
    ));
    assert!(parsed("spa-admin grant ana wiki --for 4h").is_err());
    assert!(parsed("spa-admin grant ana wiki --why incident").is_err());
    assert!(parsed("spa-admin grant ana wiki --for 4h --why ").is_err());
    assert!(parsed("spa-admin grant end 7").is_ok());
    assert!(parsed("spa-admin approve 7 --by bo").is_ok());
    assert!(parsed("spa-admin approve 7").is_err());
    assert!(parsed("spa-admin approve list --json").is_ok());
}

#[test]
fn a_lock_names_its_target_or_is_listed() {
    let lock = |line: &str| match Cli::try_parse_from(line.split(' '))?.command {
        Command::Lock(args) => Ok::<_, clap::Error>(args),
        _ => panic!("lock"),
    };
    let made = lock("spa-admin lock user:ana --for 2h --why lost").expect("parses");
    assert_eq!(made.target.as_deref(), Some("user:ana"));
    assert!(made.list.is_none() && made.length.is_some());
    let listed = lock("spa-admin lock list --json").expect("parses");
    assert!(matches!(
        listed.list,
        Some(ListCommand::List(ListArgs { json: true }))
    ));
    for wrong in [
        "spa-admin lock",
        "spa-admin lock ana",
        "spa-admin lock source:10.0.0.1/33",
    ] {
        assert_eq!(lock(wrong).expect_err("refused").exit_code(), 2, "{wrong}");
    }
}

#[test]
fn a_wrong_value_is_a_usage_error() {
    let refusal = Cli::try_parse_from(["spa-admin", "invite", "ana", "--valid", "24"]);
    assert_eq!(refusal.expect_err("refused").exit_code(), 2);
}
