'use strict'
// What the tests need of Haraka: a mailbox whose users are all but "bad", and a relay for two domains, to one port.

const fs = require('node:fs')
const path = require('node:path')

exports.register = function () {
    this.settings = this.config.get('peer.json')
}

exports.hook_rcpt = function (next, connection, params) {
    const recipient = params[0]
    if (recipient.user === 'bad' && recipient.host === 'here.test') return next(DENY, 'no such user')
    connection.relaying = recipient.host !== 'here.test' // a login would relay all
    next(OK)
}

exports.hook_queue = function (next, connection) {
    const transaction = connection.transaction
    const name = `${transaction.uuid}.eml`
    const draft = path.join(this.settings.mailbox, 'tmp', name)
    const file = fs.createWriteStream(draft)
    file.write(`Return-Path: ${transaction.mail_from.format()}\r\n`)
    file.write(`Envelope-to: ${transaction.rcpt_to.map((each) => each.address).join(',\r\n\t')}\r\n`)
    file.on('error', (error) => next(DENYSOFT, error.message))
    file.on('finish', () => {
        fs.renameSync(draft, path.join(this.settings.mailbox, 'new', name))
        next(OK)
    })
    transaction.message_stream.pipe(file)
}

exports.hook_get_mx = function (next, hmail, domain) {
    const mx = { priority: 0, exchange: '127.0.0.1', port: this.settings.relay }
    if (domain === 'auth.test') Object.assign(mx, { auth_type: 'PLAIN', auth_user: 'me', auth_pass: 'secret' })
    if (domain === 'lmtp.test') mx.using_lmtp = true
    next(OK, mx)
}
