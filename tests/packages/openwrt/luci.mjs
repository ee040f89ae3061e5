// LuCI's app without a router: menu and ACL are sound and fit each other, the plugin and the views; the plugin answers what
// spa-admin says and makes no command of what is no name; each view is drawn from a gateway that is played.
// Usage: node luci.mjs packaging/openwrt DIR

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

const [openwrt, dir] = process.argv.slice(2);
const app = path.join(openwrt, 'luci/luci-app-spa-gateway');
const read = (file) => fs.readFileSync(path.join(app, file), 'utf8');

// Menu and ACL.
const menu = JSON.parse(read('root/usr/share/luci/menu.d/luci-app-spa-gateway.json'));
const acl = JSON.parse(read('root/usr/share/rpcd/acl.d/luci-app-spa-gateway.json'))['luci-app-spa-gateway'];
const views = Object.values(menu).map((entry) => entry.action).filter((action) => action.type === 'view').map((action) => action.path);
assert.deepEqual(views.length, 4);
assert.deepEqual(menu['admin/services/spa-gateway'].depends.acl, ['luci-app-spa-gateway']);

// The plugin: ucode is near enough to JavaScript to be run as such, with what it imports played.
const commands = [];
let said = { text: '', code: 0 };
const ucode = {
	popen: (command) => {
		commands.push(command);
		return { read: () => said.text, close: () => said.code };
	},
	trim: (text) => text.trim(),
	json: JSON.parse,
	type: (value) => typeof value,
	// POSIX, with an end at every line.
	match: (text, pattern) => text.split('\0')[0].match(new RegExp(pattern, 'm')),
	split: (text, by) => text.split(by),
	length: (text) => text.length,
	push: (list, value) => list.push(value),
};
const source = read('root/usr/share/rpcd/ucode/spa.uc')
	.replace(/^import .*$/m, '')
	.replace(/for \(let (\w+) in split/g, 'for (let $1 of split');
const plugin = new Function(...Object.keys(ucode), source)(...Object.values(ucode))['luci.spa'];
const allowed = [...acl.read.ubus['luci.spa'], ...acl.write.ubus['luci.spa']];
assert.deepEqual(Object.keys(plugin).sort(), allowed.sort(), 'the ACL names exactly what the plugin has');
for (const [method, { args }] of Object.entries(plugin)) {
	// What changes something is not among what may be read.
	assert.equal(acl.write.ubus['luci.spa'].includes(method), args !== undefined, method);
}
said = { text: '{"sessions":2}', code: 0 };
assert.deepEqual(plugin.status.call(), { answer: { sessions: 2 } });
assert.equal(commands.pop(), '/usr/sbin/spa-admin status --json 2>&1');
said = { text: 'no gateway answers\n', code: 1 };
assert.deepEqual(plugin.sessions.call(), { error: 'no gateway answers' });
said = { text: '{"id":1,"line":{"at":1}}\n{"id":2,"line":{"at":2}}\n', code: 0 };
assert.equal(plugin.log.call().answer.length, 2);
commands.length = 0;
for (const [method, key] of [['cut', 'what'], ['invite', 'user'], ['confirm', 'device'], ['revoke', 'device']]) {
	for (const bad of ['', '-f', 'ana; reboot', 'ana$(reboot)', 'ana\nreboot', 'reboot\nana', 'ana\n', 'ana\0', 'a b', '../x', '`id`', 'a/b/c', null, 7, 'a'.repeat(200), "a'b"]) {
		assert.deepEqual(plugin[method].call({ args: { [key]: bad } }), { error: 'that is no name' }, `${method} ${bad}`);
	}
	assert.equal(commands.length, 0, 'nothing was run for what is no name');
	said = { text: '{}', code: 0 };
	plugin[method].call({ args: { [key]: 'ana/lap-top.2' } });
	assert.match(commands.pop(), /^\/usr\/sbin\/spa-admin [a-z ]+ ana\/lap-top\.2( --json| --qr)? 2>&1$/);
}

// A gateway that is played, as spa-admin's JSON has it.
const now = Date.now();
const played = {
	status: { answer: { accepting: true, clock: 'synchronised', policy: 'in force, 3 rules', public: '198.51.100.10:51820', wireguard: 'kernel', keep_open: ['22/tcp'], refusals: { 'proof-wrong': 3, 'tag-unknown': 4711 } } },
	sessions: { answer: [
		{ session: 'fe9f1a69b7aeefb3', user: 'ana', device: 'laptop', state: 'live', resources: ['wiki', 'db'], source: '203.0.113.7:40000', not_after: now + 3_725_000 },
		{ session: '3ddf6a32594d1e6a', user: '<img src=x onerror=alert(1)>', device: 'x', state: 'waiting', resources: [], source: '203.0.113.8:1', not_after: now - 5_000 },
	] },
	people: { answer: {
		users: [{ user: 'ana', groups: ['eng'], enabled: true, devices: 1 }],
		devices: [{ user: 'ana', device: 'laptop', state: 'active', confirmed: false, words: 'apple river stone cloud', last_knock: now }, { user: 'bo', device: '', state: 'invited', confirmed: false, words: null, last_knock: null }],
	} },
	resources: { answer: [{ resource: 'wiki', to: '10.0.5.10', ports: ['443/tcp'], rules: ['eng-wiki'] }, { resource: 'db', to: '10.0.5.20', ports: ['5432/tcp'], rules: [] }] },
	log: { answer: [{ id: 1, line: { at: now - 60_000, kind: 'session-opened', user: 'ana', device: 'laptop', resources: ['wiki'], source: '203.0.113.7:40000' } }, { id: 2, line: { at: now, kind: 'session-ended', user: 'ana', device: 'laptop', reason: 'cut by an administrator' } }] },
	cut: { answer: { took_ms: 4 } },
	invite: { text: 'spa1:AAAA…\n' },
	confirm: { text: 'ana/laptop is confirmed' },
	revoke: { text: 'ana/laptop is revoked' },
};

// What LuCI gives a view, as far as ours use it, to be run in a browser or in what stands for one.
const runtime = `
	var calls = [], _ = function(text) { return text; };
	String.prototype.format = function() { var all = arguments, at = 0; return this.replace(/%s/g, function() { return all[at++]; }); };
	function E(tag, attributes, children) {
		var node = document.createElement(tag);
		Object.keys(attributes || {}).forEach(function(key) {
			if (typeof attributes[key] == 'function') node.addEventListener(key, attributes[key]);
			else node.setAttribute(key, attributes[key]);
		});
		[].concat(children == null ? [] : children).forEach(function(child) {
			node.appendChild(typeof child == 'object' ? child : document.createTextNode(String(child)));
		});
		return node;
	}
	var L = { bind: function(f, self) { var more = [].slice.call(arguments, 2); return function() { return f.apply(self, more.concat([].slice.call(arguments))); }; } };
	var view = { extend: function(what) { return what; } };
	var poll = { add: function(f) { poll.added = f; } };
	var ui = {
		createHandlerFn: function(self, name) { var more = [].slice.call(arguments, 2); return function() { return self[name].apply(self, more); }; },
		addNotification: function(title, node) { calls.push([ 'said', node.textContent ]); },
		showModal: function(title, nodes) { calls.push([ 'modal', title, nodes.map(function(node) { return node.textContent; }).join('') ]); },
		hideModal: function() {}
	};
	var rpc = { declare: function(what) { return function() {
		var args = [].slice.call(arguments);
		calls.push([ what.object, what.method ].concat(args));
		return Promise.resolve(JSON.parse(JSON.stringify(played[what.method])));
	}; } };
`;

// Enough of a document for E and for what the views do with what they made.
class Node {
	constructor(tag, text) { this.tag = tag; this.attributes = {}; this.children = []; this.on = {}; this.text = text; }
	setAttribute(key, value) { this.attributes[key] = String(value); if (key === 'id') Node.ids[value] = this; }
	getAttribute(key) { return this.attributes[key]; }
	addEventListener(kind, f) { this.on[kind] = f; }
	appendChild(child) { assert.ok(child instanceof Node, 'a child is a node'); this.children.push(child); child.parent = this; return child; }
	replaceWith(other) { Node.replaced = other; }
	get textContent() { return this.text ?? this.children.map((child) => child.textContent).join(' '); }
	set textContent(text) { this.children = [new Node('#text', text)]; }
	all(test) { return [...(test(this) ? [this] : []), ...this.children.flatMap((child) => child.all(test))]; }
}
Node.ids = {};
const document = {
	createElement: (tag) => new Node(tag),
	createTextNode: (text) => new Node('#text', text),
	getElementById: (id) => Node.ids[id],
	querySelectorAll: () => [],
};
const window = { setInterval: () => 0 };

async function draw(name) {
	const text = read(`htdocs/luci-static/resources/view/${name}.js`);
	const required = [...text.matchAll(/^'require (\w+)';/gm)].map((found) => found[1]);
	for (const module of required) assert.ok(['view', 'rpc', 'poll', 'ui'].includes(module), `${name} requires ${module}`);
	const run = new Function('document', 'window', 'played', `${runtime}; var made = (function() { ${text} })(); return { made: made, calls: calls, poll: poll };`);
	const { made, calls, poll } = run(document, window, played);
	const node = made.render(await made.load());
	return { made, node, calls, poll, press: (label) => node.all((n) => n.tag === 'button' && n.textContent === label)[0].on.click() };
}

const sessions = await draw('spa-gateway/sessions');
assert.match(sessions.node.textContent, /ana\/laptop.*wiki, db.*203\.0\.113\.7:40000.*live.*1:02:0\d/s);
assert.match(sessions.node.textContent, /0:00:00/);
assert.match(sessions.node.textContent, /tag-unknown 4711/);
assert.match(sessions.node.textContent, /Open to everybody 22\/tcp/);
assert.equal(sessions.node.all((n) => n.tag === 'img').length, 0, 'a name is text');
await sessions.press('Cut');
assert.ok(sessions.calls.some((call) => call.join(' ') === 'luci.spa cut fe9f1a69b7aeefb3'));
assert.ok(sessions.calls.some((call) => call[0] === 'said' && call[1].includes('4 ms')));
assert.ok(Node.replaced, 'what is shown is drawn anew');
assert.equal(typeof sessions.poll.added, 'function');

const people = await draw('spa-gateway/people');
assert.match(people.node.textContent, /ana\/laptop.*active.*apple river stone cloud/s);
assert.match(people.node.textContent, /bo \(invited\)/);
await people.press('Invite');
assert.ok(people.calls.some((call) => call[0] === 'modal' && call[2].includes('spa1:AAAA')));
await people.press('Words agree');
assert.ok(people.calls.some((call) => call.join(' ') === 'luci.spa confirm ana/laptop'));

const resources = await draw('spa-gateway/resources');
assert.match(resources.node.textContent, /wiki 10\.0\.5\.10 443\/tcp eng-wiki.*db .*no rule allows it/s);
const log = await draw('spa-gateway/log');
assert.match(log.node.textContent, /session-ended.*cut by an administrator.*session-opened/s);

// A page for each view, for a browser to draw; it says in its title that it has.
fs.mkdirSync(path.join(dir, 'pages'), { recursive: true });
const style = 'body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4em;border-bottom:1px solid #ddd}.btn{padding:.3em 1em}';
for (const name of views) {
	const text = read(`htdocs/luci-static/resources/view/${name}.js`);
	const script = `var played = ${JSON.stringify(played).replace(/</g, '\\u003c')};${runtime}
		var made = (function() { ${text} })();
		made.load().then(function(found) { document.body.appendChild(made.render(found)); document.title = 'drawn'; });`;
	const page = `<!doctype html><meta charset="utf-8"><title>not drawn</title><style>${style}</style><body><script>${script}</script></body>`;
	fs.writeFileSync(path.join(dir, 'pages', `${path.basename(name)}.html`), page);
}

for (const method of Object.keys(played)) played[method] = { error: 'no gateway answers; start it' };
for (const name of views) assert.match((await draw(name)).node.textContent, /no gateway answers; start it/, name);

console.log('views and plugin of LuCI are sound');
