'use strict';
'require view';
'require rpc';
'require poll';
'require ui';

// Who is in, for how much longer, and why others are not.

var callStatus = rpc.declare({ object: 'luci.spa', method: 'status' });
var callSessions = rpc.declare({ object: 'luci.spa', method: 'sessions' });
var callCut = rpc.declare({ object: 'luci.spa', method: 'cut', params: [ 'what' ] });

var EVERY_SECONDS = 3;

function left(until) {
	var seconds = Math.max(0, Math.round((until - Date.now()) / 1000));
	var two = function(number) { return (number < 10 ? '0' : '') + number; };
	return Math.floor(seconds / 3600) + ':' + two(Math.floor(seconds / 60) % 60) + ':' + two(seconds % 60);
}

function fact(name, value) {
	return E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '33%' }, [ name ]),
		E('td', { 'class': 'td left' }, [ value ])
	]);
}

return view.extend({
	load: function() {
		return Promise.all([ callStatus(), callSessions() ]);
	},

	cut: function(id) {
		return callCut(id).then(L.bind(function(said) {
			var line = said.error || _('Cut in %s ms.').format(said.answer.took_ms);
			ui.addNotification(null, E('p', {}, [ line ]), said.error ? 'danger' : 'info');
			return this.refresh();
		}, this));
	},

	refresh: function() {
		return this.load().then(L.bind(function(found) {
			var old = document.getElementById('spa-sessions');
			if (old)
				old.replaceWith(this.draw(found));
		}, this));
	},

	draw: function(found) {
		var status = found[0], sessions = found[1];
		if (status.error || sessions.error)
			return E('div', { 'id': 'spa-sessions' }, [
				E('div', { 'class': 'alert-message warning' }, [ status.error || sessions.error ])
			]);
		status = status.answer;
		sessions = Array.isArray(sessions.answer) ? sessions.answer : sessions.answer.sessions;

		var facts = [
			fact(_('Knocks'), status.accepting ? _('accepted') : _('not accepted')),
			fact(_('Clock'), status.clock),
			fact(_('Policy'), status.policy),
			fact(_('Address in invites'), status.public),
			fact(_('WireGuard'), status.wireguard)
		];
		if (status.keep_open.length)
			facts.push(fact(_('Open to everybody'), status.keep_open.join(', ')));

		var rows = sessions.map(L.bind(function(session) {
			return E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td' }, [ session.user + '/' + session.device ]),
				E('td', { 'class': 'td' }, [ session.resources.join(', ') || '-' ]),
				E('td', { 'class': 'td' }, [ session.source ]),
				E('td', { 'class': 'td' }, [ session.state ]),
				E('td', { 'class': 'td', 'data-until': session.not_after }, [ left(session.not_after) ]),
				E('td', { 'class': 'td cbi-section-actions' }, [
					E('button', {
						'class': 'btn cbi-button cbi-button-remove',
						'click': ui.createHandlerFn(this, 'cut', session.session)
					}, [ _('Cut') ])
				])
			]);
		}, this));
		if (!rows.length)
			rows = [ E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ _('Nobody is in.') ]) ]) ];

		var refusals = Object.keys(status.refusals).sort().map(function(reason) {
			return fact(reason, String(status.refusals[reason]));
		});

		return E('div', { 'id': 'spa-sessions' }, [
			E('table', { 'class': 'table' }, facts),
			E('h3', {}, [ _('Sessions') ]),
			E('table', { 'class': 'table' }, [
				E('tr', { 'class': 'tr table-titles' }, [ _('Who'), _('What'), _('From'), _('State'), _('Time left'), '' ].map(
					function(title) { return E('th', { 'class': 'th' }, [ title ]); }))
			].concat(rows)),
			E('h3', {}, [ _('Refused since the start') ]),
			E('table', { 'class': 'table' }, refusals.length ? refusals : [ fact(_('Nothing'), '') ])
		]);
	},

	render: function(found) {
		poll.add(L.bind(this.refresh, this), EVERY_SECONDS);
		window.setInterval(function() {
			document.querySelectorAll('#spa-sessions [data-until]').forEach(function(cell) {
				cell.textContent = left(+cell.getAttribute('data-until'));
			});
		}, 1000);
		return E('div', {}, [ E('h2', {}, [ _('Sessions') ]), this.draw(found) ]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
