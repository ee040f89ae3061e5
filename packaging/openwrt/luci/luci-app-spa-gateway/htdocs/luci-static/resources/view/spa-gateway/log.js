'use strict';
'require view';
'require rpc';

// What happened, the newest first.

var callLog = rpc.declare({ object: 'luci.spa', method: 'log' });

return view.extend({
	load: function() {
		return callLog();
	},

	render: function(found) {
		if (found.error)
			return E('div', { 'class': 'alert-message warning' }, [ found.error ]);
		var cell = function(text) { return E('td', { 'class': 'td' }, [ text || '' ]); };
		var rows = found.answer.slice().reverse().map(function(entry) {
			var line = entry.line || entry;
			return E('tr', { 'class': 'tr' }, [
				cell(new Date(line.at).toLocaleString()),
				cell(line.kind),
				cell([ line.user, line.device ].filter(Boolean).join('/')),
				cell((line.resources || []).join(', ')),
				cell(line.source),
				cell([ line.reason, line.note ].filter(Boolean).join('; '))
			]);
		});
		return E('div', {}, [
			E('h2', {}, [ _('Log') ]),
			E('table', { 'class': 'table' }, [
				E('tr', { 'class': 'tr table-titles' }, [ _('When'), _('What'), _('Who'), _('Resources'), _('From'), _('Why') ].map(
					function(title) { return E('th', { 'class': 'th' }, [ title ]); }))
			].concat(rows))
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
