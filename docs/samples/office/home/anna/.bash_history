cd /srv/reports
ls -l
vim 2024-q1.csv
sudo tail -n 50 /var/log/auth.log
sudo passwd -l ben
last | head
df -h
exit
