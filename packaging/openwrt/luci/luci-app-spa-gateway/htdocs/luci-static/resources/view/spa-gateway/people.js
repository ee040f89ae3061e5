'use strict';
'require view';
'require rpc';
'require ui';

// People and their devices; invites, with a code to photograph.

var callPeople = rpc.declare({ object: 'luci.spa', method: 'people' });
var callInvite = rpc.declare({ object: 'luci.spa', method: 'invite', params: [ 'user' ] });
var callConfirm = rpc.declare({ object: 'luci.spa', method: 'confirm', params: [ 'device' ] });
var callRevoke = rpc.declare({ object: 'luci.spa', method: 'revoke', params: [ 'device' ] });

function titles(names) {
	return E('tr', { 'class': 'tr table-titles' }, names.map(function(name) {
		return E('th', { 'class': 'th' }, [ name ]);
	}));
}

function row(cells) {
	return E('tr', { 'class': 'tr' }, cells.map(function(cell) {
		return E('td', { 'class': 'td' }, Array.isArray(cell) ? cell : [ cell ]);
	}));
}

return view.extend({
	load: function() {
		return callPeople();
	},

	button: function(label, kind, handler, argument) {
		return E('button', {
			'class': 'btn cbi-button cbi-button-' + kind,
			'click': ui.createHandlerFn(this, handler, argument)
		}, [ label ]);
	},

	invite: function(user) {
		return callInvite(user).then(function(said) {
			ui.showModal(_('Invite for %s').format(user), [
				E('p', {}, [ said.error ? '' : _('Whoever has this can enrol, once. Hand it over on a way you both trust.') ]),
				E('pre', { 'style': 'line-height:1;overflow:auto' }, [ said.error || said.text ]),
				E('div', { 'class': 'right' }, [ E('button', { 'class': 'btn', 'click': ui.hideModal }, [ _('Close') ]) ])
			]);
		});
	},

	told: function(call) {
		return call.then(function(said) {
			ui.addNotification(null, E('p', {}, [ said.error || said.text ]), said.error ? 'danger' : 'info');
		});
	},

	confirm: function(device) { return this.told(callConfirm(device)); },
	revoke: function(device) { return this.told(callRevoke(device)); },

	render: function(found) {
		if (found.error)
			return E('div', { 'class': 'alert-message warning' }, [ found.error ]);
		var users = found.answer.users.map(L.bind(function(user) {
			return row([
				user.user,
				user.groups.join(', ') || '-',
				user.enabled ? _('yes') : _('no'),
				String(user.devices),
				[ this.button(_('Invite'), 'add', 'invite', user.user) ]
			]);
		}, this));
		var devices = found.answer.devices.map(L.bind(function(device) {
			var name = device.user + '/' + device.device, buttons = [];
			if (device.device && !device.confirmed)
				buttons.push(this.button(_('Words agree'), 'apply', 'confirm', name), ' ');
			if (device.device)
				buttons.push(this.button(_('Revoke'), 'remove', 'revoke', name));
			return row([
				device.device ? name : device.user + ' (' + _('invited') + ')',
				device.state,
				device.words || '-',
				device.last_knock ? new Date(device.last_knock).toLocaleString() : '-',
				buttons
			]);
		}, this));
		return E('div', {}, [
			E('h2', {}, [ _('People') ]),
			E('table', { 'class': 'table' }, [ titles([ _('Name'), _('Groups'), _('Enabled'), _('Devices'), '' ]) ].concat(users)),
			E('h3', {}, [ _('Devices') ]),
			E('table', { 'class': 'table' }, [ titles([ _('Device'), _('State'), _('Four words'), _('Last knock'), '' ]) ].concat(devices))
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
