// What LuCI asks of the gateway, through spa-admin and its socket. Everything that comes from a browser is a name of a few
// characters or it is refused: it becomes a word of a command.

'use strict';

import { popen } from 'fs';

// A person, device or resource (spa-policy(5)), a session's number, or two of them with a stroke or a colon between.
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}([\/:][A-Za-z0-9_][A-Za-z0-9._-]{0,62})?$/;

function words(command) {
	let pipe = popen(`/usr/sbin/spa-admin ${command} 2>&1`, 'r');
	if (!pipe)
		return { error: 'spa-admin cannot be run' };
	let text = pipe.read('all');
	let code = pipe.close();
	return code == 0 ? { text } : { error: trim(text) };
}

function answer(command) {
	let said = words(`${command} --json`);
	if (said.error != null)
		return said;
	try {
		return { answer: json(said.text) };
	}
	catch (e) {
		return { error: trim(said.text) };
	}
}

function named(value, then) {
	let name = type(value) == 'string' ? match(value, NAME) : null;
	// All of it: to ucode ^ and $ are the ends of a line, and a NUL is the end of the text.
	if (!name || name[0] != value)
		return { error: 'that is no name' };
	return then(value);
}

function lines(text) {
	let all = [];
	for (let line in split(text, '\n'))
		if (length(line))
			push(all, json(line));
	return all;
}

return {
	'luci.spa': {
		status: { call: () => answer('status') },
		sessions: { call: () => answer('session list') },
		resources: { call: () => answer('resource list') },
		people: {
			call: () => {
				let users = answer('user list');
				if (users.error != null)
					return users;
				let devices = answer('device list');
				if (devices.error != null)
					return devices;
				return { answer: { users: users.answer, devices: devices.answer } };
			}
		},
		log: {
			call: () => {
				let said = words('log -n 200 --json');
				return said.error != null ? said : { answer: lines(said.text) };
			}
		},
		cut: {
			args: { what: '' },
			call: (request) => named(request.args.what, (what) => answer(`session cut ${what}`))
		},
		invite: {
			args: { user: '' },
			call: (request) => named(request.args.user, (user) => words(`invite ${user} --qr`))
		},
		confirm: {
			args: { device: '' },
			call: (request) => named(request.args.device, (device) => words(`device confirm ${device}`))
		},
		revoke: {
			args: { device: '' },
			call: (request) => named(request.args.device, (device) => words(`device revoke ${device}`))
		}
	}
};
