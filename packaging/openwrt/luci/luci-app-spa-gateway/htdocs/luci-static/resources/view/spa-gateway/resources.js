'use strict';
'require view';
'require rpc';

// What can be reached and by which rules; it is changed in the policy file.

var callResources = rpc.declare({ object: 'luci.spa', method: 'resources' });

return view.extend({
	load: function() {
		return callResources();
	},

	render: function(found) {
		if (found.error)
			return E('div', { 'class': 'alert-message warning' }, [ found.error ]);
		var cell = function(text) { return E('td', { 'class': 'td' }, [ text ]); };
		var rows = found.answer.map(function(resource) {
			return E('tr', { 'class': 'tr' }, [
				cell(resource.resource),
				cell(resource.to),
				cell(resource.ports.join(', ')),
				cell(resource.rules.join(', ') || _('no rule allows it'))
			]);
		});
		return E('div', {}, [
			E('h2', {}, [ _('Resources') ]),
			E('p', {}, [ _('Resources and rules stand in /etc/spa/policy.toml; "spa-admin policy check" tries a change.') ]),
			E('table', { 'class': 'table' }, [
				E('tr', { 'class': 'tr table-titles' }, [ _('Name'), _('Where'), _('Ports'), _('Rules') ].map(
					function(title) { return E('th', { 'class': 'th' }, [ title ]); }))
			].concat(rows))
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
