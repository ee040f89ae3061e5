// The plugin of LuCI's app as rpcd loads it, by ucode's own interpreter. Usage: ucode plugin.uc PLUGIN [USER]
// With the name of a USER it talks with a real gateway, through a real spa-admin, otherwise with one that says `{"asked":WORDS}`.

'use strict';

function holds(what, said) {
	if (!what)
		die(said);
}

const plugin = loadfile(ARGV[0], { raw_mode: true })()['luci.spa'];
const user = ARGV[1];

const inputs = { cut: 'what', invite: 'user', confirm: 'device', revoke: 'device' };
for (let method, key in inputs)
	for (let bad in ['', '-f', 'ana; reboot', 'ana$(reboot)', 'ana\nreboot', 'reboot\nana', 'ana\n', 'ana\u0000', 'ana\u0000b', 'a b', '../x', '`id`', 'a/b/c', null, 7, "a'b"]) {
		let answer = plugin[method].call({ args: { [key]: bad } });
		holds(answer.error == 'that is no name', `${method} of ${bad}: ${answer}`);
	}

if (user == null) {
	for (let method in plugin) {
		let answer = plugin[method].call({ args: { what: 'ana/lap-top.2', user: 'ana', device: 'ana/lap-top.2' } });
		holds(answer.error == null, `${method}: ${answer}`);
	}
	holds(plugin.cut.call({ args: { what: 'resource:db' } }).answer.asked == 'session cut resource:db --json', 'cut asks for something else');
}
else {
	for (let method in ['status', 'sessions', 'people', 'resources', 'log']) {
		let answer = plugin[method].call({ args: {} });
		holds(answer.answer != null, `${method}: ${answer}`);
	}
	holds(plugin.status.call({}).answer.accepting === true, 'the gateway does not accept');
	holds(plugin.people.call({}).answer.users[0].user == user, `${user} is not among the people`);
	holds(match(plugin.invite.call({ args: { user } }).text, /spa1:/), 'no invite');
	holds(plugin.invite.call({ args: { user: 'nobody' } }).error != null, 'an invite for nobody');
	holds(match(plugin.cut.call({ args: { what: user } }).error, /no live session/), 'a cut where nothing is open');
	holds(length(plugin.log.call({}).answer) > 0, 'nothing was written down');
}
print('the plugin does what it should, by ucode itself\n');
